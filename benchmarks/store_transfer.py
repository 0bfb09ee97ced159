"""Upload and download of one large file through a repository's store, beside the store library's own best.

``python benchmarks/store_transfer.py``: on servers that it starts on this machine, one for each kind of store
(fake-gcs-server, versitygw, azurite; built and installed once). ``--kind s3`` takes only that one.

``python benchmarks/store_transfer.py URL``: in the bucket at URL, configured as for any use of it.

Both sides run in turn, ``--rounds`` times, and the best of each counts. *The library's own best* is the fastest of the
ways that its manual shows, with the checksums that it sends by default: ours sends and compares one with every part.
Measured through: staging, claim, upload, manifest; and what a fetch reads, without the hashing of it. The servers hold
what they have on a disk (versitygw) or in memory (the others): ``--megabytes 1000`` takes 4 GB of that. moto is no
server to measure with: it copies the whole object for each range that is read, so any ranged download is quadratic.
fake-gcs-server copies what it has at each chunk of a resumable upload, which Google's library therefore sends in one.
It has no uploads in parts by the XML API (tried with 1.56.1, its latest: the ``POST ?uploads`` that begins one is
answered by 404): the library's ``upload_chunks_concurrently`` is among its own ways only in a bucket of Google's.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bars import at_least, hold

from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.stores import BucketStore, Overwrite, open_store

Work = Callable[[], object]

BAR = 0.8
SERVERS = {"gs": "google", "s3": "gateway", "az": "azure"}
KEY = "gravswell-benchmark/library"


def main() -> None:
    """Measure and print; exits with 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--kind", choices=SERVERS, action="append")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as folder:
        file = Path(folder, "model.onnx")
        block = os.urandom(1 << 20)
        with file.open("wb") as sink:
            for _ in range(options.megabytes * 1_000_000 // len(block)):
                sink.write(block)
        missed: list[str] = []
        if options.url:
            missed += measure(options.url, file, Path(folder, "out"), options.rounds)
        for kind in () if options.url else options.kind or SERVERS:
            with served(kind, Path(folder)) as url:
                missed += measure(url, file, Path(folder, "out"), options.rounds)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB")
    hold(missed)


@contextmanager
def served(kind: str, folder: Path) -> Iterator[str]:
    """URL of a bucket on a server of that kind."""
    with emulated(kind, folder) as server:
        os.environ.update(server.environment)
        yield f"{kind}://benchmark"


@contextmanager
def emulated(kind: str, folder: Path) -> Iterator[Any]:
    """A server of that kind, as the tests start it, with the bucket ``benchmark``; nothing is told of it yet."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/quiver/stores"))
    import emulators  # noqa: PLC0415 - they are the tests'

    home = folder / kind
    home.mkdir()
    with getattr(emulators, SERVERS[kind])(home) as server:
        server.make_bucket("benchmark")
        yield server
    shutil.rmtree(home)


def measure(url: str, file: Path, out: Path, rounds: int) -> list[str]:
    """Print our best and the library's, up and down. Returns a line for each that misses the bar."""
    store = open_store(f"{url}/gravswell-benchmark")
    assert isinstance(store, BucketStore), "give the URL of a bucket"
    store.write("m/config.pbtxt", b"", Overwrite())
    numbers = iter(range(1, 1000))
    last = [0]

    def publish() -> None:
        if last[0]:
            store.remove_folder(f"m/{last[0]}")
        last[0] = next(numbers)
        with store.staging() as stage:
            (stage / "model.onnx").symlink_to(file)
            (stage / MANIFEST).write_bytes(b"{}")
            store.publish(stage, f"m/{last[0]}")

    def fetch() -> None:
        with store.open(f"m/{last[0]}/model.onnx") as source, out.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)

    uploads, downloads = library(url, file, out)
    missed: list[str] = []
    for name, ours, theirs in (("upload", publish, uploads), ("download", fetch, downloads)):
        ways: dict[str, Work] = {"ours": ours, **theirs}
        best = dict.fromkeys(ways, 0.0)
        for _ in range(rounds):
            for way, work in ways.items():
                best[way] = max(best[way], rate(work, file.stat().st_size))
        own = best.pop("ours")
        way = max(best, key=lambda way: best[way])
        ratio = round(own / best[way], 2)
        missed += at_least(f"{url} {name}, MB/s of the library's own best", ratio, BAR)
        print(
            f"{url} {name}: {own:.0f} MB/s; the library's own best ({way}) {best[way]:.0f} MB/s; "
            f"ratio {ratio:.2f}, best of {rounds}: {'met' if ratio >= BAR else f'below {BAR}'}",
            flush=True,
        )
    store.remove_folder("m")
    store.delete(".m.gravswell.json")
    store.delete("library")
    return missed


def rate(work: Work, size: int) -> float:
    """MB/s."""
    begin = time.perf_counter()
    work()
    return size / 1e6 / (time.perf_counter() - begin)


def library(url: str, file: Path, out: Path) -> tuple[dict[str, Work], dict[str, Work]]:
    """What a program does that uses the library as its manual shows: uploads and downloads, each by its name."""
    scheme, _, bucket = url.partition("://")
    if scheme == "gs":
        from google.cloud import storage  # noqa: PLC0415
        from google.cloud.storage import transfer_manager  # noqa: PLC0415

        blob = storage.Client(project=None).bucket(bucket).blob(KEY)
        uploads: dict[str, Work] = {"upload_from_filename": lambda: blob.upload_from_filename(file)}
        if "STORAGE_EMULATOR_HOST" not in os.environ:
            uploads["transfer_manager"] = lambda: transfer_manager.upload_chunks_concurrently(file, blob)
        return uploads, {
            "download_to_filename": lambda: blob.download_to_filename(out),
            "transfer_manager": lambda: transfer_manager.download_chunks_concurrently(blob, out),
        }
    if scheme == "az":
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415

        service = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
        client = service.get_blob_client(bucket, KEY)

        def put(parallel: int) -> None:
            with file.open("rb") as source:
                client.upload_blob(source, overwrite=True, max_concurrency=parallel)

        def get(parallel: int) -> None:
            with out.open("wb") as sink:
                client.download_blob(max_concurrency=parallel).readinto(sink)

        return {"upload_blob": lambda: put(1), "upload_blob, 8 at once": lambda: put(8)}, {
            "download_blob": lambda: get(1),
            "download_blob, 8 at once": lambda: get(8),
        }
    import obstore  # noqa: PLC0415
    from obstore.store import S3Store  # noqa: PLC0415

    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    plain = bool(endpoint and endpoint.startswith("http://"))
    store = S3Store(
        bucket,
        config={"endpoint": endpoint} if endpoint else {},
        client_options={"timeout": "300s", "allow_http": plain},
    )

    def stream() -> None:
        with out.open("wb") as sink:
            for chunk in obstore.get(store, KEY).stream(min_chunk_size=8 << 20):
                sink.write(chunk)

    return {
        "put": lambda: obstore.put(store, KEY, file),
        "put, parts of 16 MiB": lambda: obstore.put(store, KEY, file, chunk_size=16 << 20),
    }, {"get, streamed": stream}


if __name__ == "__main__":
    main()
