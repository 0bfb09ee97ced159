"""A crowd at one model: so many writers, each a process of its own, and a reader beside them; run by the tests.

``python -m quiver.crowd URL COUNT WRITERS LOGS MODEL.onnx``. Everything is imported once, and the processes
forked from that before anybody connects to a store. Each writer appends each number to a file in LOGS once it is said
to be published; the reader, which reads until they are done, how often it read. One that fails prints its traceback,
and the run ends with 1.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime  # noqa: F401 - before the forks

from gravswell import quiver as qv
from gravswell.quiver import exporters  # noqa: F401 - likewise
from gravswell.quiver.reader import RepositoryReader

from .forking import fork


def write(url: str, count: int, log: Path, model: str) -> None:
    """Export so many versions."""
    entry = qv.ModelRepository.open(url).models["m"]
    with log.open("a", buffering=1) as said:
        for _ in range(count):
            said.write(entry.export_version(model).split("/")[-2] + "\n")


def read(url: str, log: Path, ended: Callable[[], bool]) -> None:
    """List until the writers are done: never fewer versions, none without its manifest, and the newest is all there."""
    reader, seen, rounds = RepositoryReader(url), 0, 0
    while not ended():
        versions = reader.versions("m")
        assert all(info.digest is not None for info in versions), versions
        assert len(versions) >= seen, (len(versions), seen)
        seen = len(versions)
        if versions:
            assert reader.check("m", versions[0].number) is not None
        rounds += 1
    log.write_text(f"{rounds}\n")


def main(url: str, count: str, writers: str, logs: str, model: str) -> int:
    """Whether all of them did what they should."""
    folder, done = Path(logs), Path(logs, "done")
    reader = fork(lambda: read(url, folder / "reader", done.exists))
    crowd = [fork(lambda k=k: write(url, int(count), folder / f"{k}.log", model)) for k in range(int(writers))]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in crowd]
    done.touch()
    codes.append(os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]))
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
