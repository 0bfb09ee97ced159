"""Upload and download of one large file through a repository's store, beside the store library's own calls.

``python benchmarks/store_transfer.py URL [--megabytes 1000]``: URL names a bucket, configured as for any use of it.
Both sides of a pair run in turn, three times; the best of each counts, and our peak memory is printed.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.stores import BucketStore, Overwrite, open_store


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--megabytes", type=int, default=1000)
    options = parser.parse_args()
    store = open_store(f"{options.url}/gravswell-benchmark")
    assert isinstance(store, BucketStore), "give the URL of a bucket"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        block = bytes(range(256)) * 4096
        with file.open("wb") as sink:
            for _ in range(options.megabytes * 1_000_000 // len(block)):
                sink.write(block)
        size = file.stat().st_size
        store.write("m/config.pbtxt", b"", Overwrite())
        numbers = iter(range(1, 100))
        last = [0]

        def publish() -> None:
            last[0] = next(numbers)
            with store.staging() as stage:
                (stage / "model.onnx").symlink_to(file)
                (stage / MANIFEST).write_bytes(b"{}")
                store.publish(stage, f"m/{last[0]}")

        def fetch() -> None:
            with store.open(f"m/{last[0]}/model.onnx") as source, Path(folder, "out").open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)

        own_up, own_down = _library(options.url, file, Path(folder, "out"))
        for name, ours, theirs in (("upload", publish, own_up), ("download", fetch, own_down)):
            rates = [[_rate(work, size) for work in (ours, theirs)] for _ in range(3)]
            best = [max(column) for column in zip(*rates, strict=True)]
            print(f"{name}: {best[0]:.0f} MB/s, the library alone {best[1]:.0f} MB/s, ratio {best[0] / best[1]:.2f}")
        print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB")
        store.remove_folder("m")
        store.delete(".m.gravswell.json")
        store.delete("library")


def _rate(work: Callable[[], None], size: int) -> float:
    begin = time.perf_counter()
    work()
    return size / 1e6 / (time.perf_counter() - begin)


def _library(url: str, file: Path, out: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """What a program does that uses the library as its manual shows."""
    key = "gravswell-benchmark/library"
    if url.startswith("gs://"):
        from google.cloud import storage  # noqa: PLC0415

        blob = storage.Client(project=None).bucket(url.removeprefix("gs://")).blob(key)
        return (lambda: blob.upload_from_filename(file)), (lambda: blob.download_to_filename(out))
    import obstore  # noqa: PLC0415

    store = open_store(url)._objects._store  # type: ignore[attr-defined]  # configured as ours is

    def download() -> None:
        with out.open("wb") as sink:
            for chunk in obstore.get(store, key).stream(min_chunk_size=8 << 20):
                sink.write(chunk)

    return (lambda: obstore.put(store, key, file) and None), download


if __name__ == "__main__":
    main()
