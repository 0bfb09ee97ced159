"""A repository of a thousand entries: opened and listed, beside reading its files; in a bucket, the requests counted.

``python benchmarks/listing.py``: in a folder, then in buckets on servers that it starts on this machine (built once).
``--kind gs`` takes only that one; ``--output json`` prints the figures for another program.

The bars: in a folder at most 3 times what reading the 1,000 config files takes, and a tenth of what hermes 0.3.1 took
for as many entries here (372 ms; it reads each config three times). In a bucket at most 2 list calls for each 1,000
objects, and nothing read before it is asked for. Beside them stands what is asked for later: one entry's versions,
every config parsed, and every manifest as ``ls`` reads them, in a bucket several at once. Each time is the best of
``--rounds``, of which each opens the repository anew; what is compared takes turns.
"""

import argparse
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bars import at_least, at_most, hold
from store_transfer import emulated

from gravswell import quiver as qv
from gravswell.quiver.manifest import MANIFEST, FileRecord, Manifest, Signature, VerificationRecord
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import BucketStore, Create, open_store

HERMES = 0.372
READING, AGAINST_HERMES, LISTS = 3.0, 10.0, 2.0
"""The bars."""

KINDS = ("gs", "s3", "az")
_REQUEST = re.compile(r"(?P<verb>[A-Z]+) (?P<path>\S+)")


def main() -> None:
    """Measure and print; exits with 1 if a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kind", choices=["file", *KINDS], action="append")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    kinds = options.kind or ["file", *KINDS]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as folder:
        if "file" in kinds:
            rows.append(local(Path(folder, "repository"), options.entries, options.rounds))
        for kind in (kind for kind in KINDS if kind in kinds):
            rows.append(bucket(kind, Path(folder), options.entries, options.rounds))
    if options.output == "json":
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print("\n".join(f"{row['kind']:>5}  {name}: {value}" for name, value in row.items() if name != "kind"))
    hold(line for row in rows for line in row["missed"])


def files(entries: int) -> Iterator[tuple[str, bytes]]:
    """The keys and contents of a repository: each entry a config, and a version of a few bytes."""
    for k in range(entries):
        name, model = f"model-{k:04}", b"model %d" % k
        signature = Signature(inputs=(), outputs=())
        manifest = Manifest(
            model=name,
            version=1,
            created=datetime.now(UTC),
            files={"model.onnx": FileRecord(sha256="0" * 64, size=len(model))},
            signature=signature,
            opset=18,
            ir_version=9,
            exporter="benchmark",
            framework="none",
            gravswell="0",
            verification=VerificationRecord(reference="none", samples=0),
        )
        tensor = 'name: "x" data_type: TYPE_FP32 dims: [-1, 64]'
        text = f'name: "{name}"\nplatform: "onnxruntime_onnx"\ninput {{ {tensor} }}\noutput {{ {tensor} }}\n'
        yield f"{name}/config.pbtxt", text.encode()
        yield f"{name}/1/model.onnx", model
        yield f"{name}/1/{MANIFEST}", manifest.to_bytes()


def best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of them."""
    return min(seconds(work) for _ in range(rounds))


def seconds(work: Callable[[], object]) -> float:
    """How long it takes once."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def local(root: Path, entries: int, rounds: int) -> dict[str, Any]:
    """In a folder."""
    for key, data in files(entries):
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    configs = [root / f"model-{k:04}/config.pbtxt" for k in range(entries)]

    def read() -> None:
        for path in configs:
            with path.open("rb") as stream:
                stream.read()

    def listed() -> None:
        assert len(list(qv.ModelRepository.open(root).models)) == entries

    reading, listing = map(min, zip(*((seconds(read), seconds(listed)) for _ in range(rounds)), strict=True))
    ratio, faster = round(listing / reading, 2), round(HERMES / listing, 1)
    missed = at_most("file, times reading the configs", ratio, READING)
    if entries == 1000:  # of which hermes's figure is
        missed += at_least("file, times faster than hermes", faster, AGAINST_HERMES)
    return {
        "kind": "file",
        "entries": entries,
        "readingMs": _ms(reading),
        "openAndListMs": _ms(listing),
        "ratioToReading": ratio,
        "timesFasterThanHermes": faster,
        "everyConfigParsedMs": _ms(best(lambda: qv.ModelRepository.open(root).configs(), 1)),
        "everyManifestReadMs": _ms(best(lambda: RepositoryReader(root).survey(), rounds)),
        "missed": missed,
    }


def bucket(kind: str, folder: Path, entries: int, rounds: int) -> dict[str, Any]:
    """In a bucket on a server of that kind, behind a proxy that counts."""
    with served(kind, folder) as (url, heads):
        store = open_store(url)
        assert isinstance(store, BucketStore)
        held = list(files(entries))
        store.in_parallel(lambda item: store.write(*item, Create()), held)

        heads.clear()
        repository = qv.ModelRepository.open(url)
        assert len(repository.models) == entries
        opened = requests(heads)
        heads.clear()
        assert qv.ModelRepository.open(url).models[f"model-{entries - 1:04}"].versions == [1]
        alone = requests(heads)
        heads.clear()
        assert len(RepositoryReader(url).survey()) == entries
        surveyed = requests(heads)
        heads.clear()
        assert len(qv.ModelRepository.open(url).configs()) == entries
        configured = requests(heads)
        lists = round(opened["list"] / (len(held) / 1000), 2)
        others = opened.total() - opened["list"] - opened["library"]
        missed = at_most(f"{kind}, list calls for each 1,000 objects", lists, LISTS)
        missed += at_most(f"{kind}, other requests before anything is asked for", others, 0)
        return {
            "kind": kind,
            "entries": entries,
            "objects": len(held),
            "openAndListRequests": dict(opened),
            "listsPerThousandObjects": lists,
            "openAndListMs": _ms(best(lambda: list(qv.ModelRepository.open(url).models), min(rounds, 3))),
            "oneEntryRequests": dict(alone),
            "everyManifestRequests": dict(surveyed),
            "everyManifestMs": _ms(best(lambda: RepositoryReader(url).survey(), 1)),
            "everyManifestOneByOneMs": _ms(
                best(lambda: [store.read(key) for key, _ in held if key.endswith(MANIFEST)], 1)
            ),
            "everyConfigRequests": dict(configured),
            "everyConfigMs": _ms(best(lambda: qv.ModelRepository.open(url).configs(), 1)),
            "everyConfigOneByOneMs": _ms(
                best(lambda: [entry.config for entry in qv.ModelRepository.open(url).models.values()], 1)
            ),
            "missed": missed,
        }


def requests(heads: list[str]) -> Counter[str]:
    """How many listings there are among them, and how many of the rest by verb.

    Google's library asks once for the bucket itself, in the background and for its tracing: ``library``.
    """
    found: Counter[str] = Counter()
    for head in heads:
        match = _REQUEST.match(head)
        assert match is not None
        path, _, query = match["path"].partition("?")
        lists = match["verb"] == "GET" and ("list-type=" in query or "comp=list" in query or path.endswith("/o"))
        own = re.fullmatch(r"/storage/v1/b/[^/]+", path)
        found["library" if own else "list" if lists else match["verb"]] += 1
    return found


@contextmanager
def served(kind: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """URL of a bucket on a server of that kind, and the heads of the requests that it gets from here on."""
    with emulated(kind, folder) as server:
        import proxy  # noqa: PLC0415 - it is the tests', beside the server

        with proxy.proxied(server.endpoint) as between:
            os.environ.update(server.behind(between.endpoint))
            yield f"{kind}://benchmark/r", between.heads


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


if __name__ == "__main__":
    main()
