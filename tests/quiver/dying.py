"""Processes that do one thing to a repository in a folder, and are killed at a chosen change of it; run by the tests.

``python -m quiver.dying ROOT MODEL.onnx``. For every operation, and every change that it makes of the disk, a
process forked for it is killed by SIGKILL before that; then another looks at what is there, and works on. Prints how
many were killed in each; any that finds something wrong ends the run with its traceback.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import onnxruntime  # noqa: F401 - before the forks

from gravswell import quiver as qv
from gravswell.quiver import exporters  # noqa: F401 - likewise
from gravswell.quiver.reader import RepositoryReader

from .faults import BEFORE, DISK, OPERATIONS, Operation, Trap, aliases_in, found_in, go_on, remains
from .forking import in_a_process


def kill() -> BaseException:
    """End this process now."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL does not return")


def die(root: Path, model: Path, operation: Operation, change: int) -> None:
    """Begin it."""
    repo = qv.ModelRepository.open(root)
    with DISK.trapped(root.parent, Trap(change, kill)):
        operation.act(repo, model)


def look(root: Path, model: Path, operation: Operation) -> None:
    """What is there is what was, or what was to be; the next user's work leaves nothing else."""
    if root.exists():
        with RepositoryReader(root).store.exclusive():  # as the next writer, which ends what was begun
            pass
    found = found_in(root)
    aliases = aliases_in(root)
    assert operation.allows(found, aliases), (found, aliases)
    go_on(root, model, {**found, **BEFORE} if found else {}, exports=1)
    assert list(root.parent.iterdir()) == [root], "what the dead one left is cleaned up"
    left = remains(root, [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()])
    assert not left, left


def deaths(source: Path, model: Path, name: str) -> int:
    """How many processes were killed until the operation was through before that."""
    operation, root = OPERATIONS[name], source.parent / "trial" / "repository"
    for change in range(300):
        shutil.copytree(source, root)
        code = in_a_process(lambda: die(root, model, operation, change))  # noqa: B023 - ends in this round
        if code not in (0, -signal.SIGKILL) or in_a_process(lambda: look(root, model, operation)) != 0:
            sys.exit(f"{name}, killed at {change}: see above")
        shutil.rmtree(root.parent)
        if code == 0:
            return change
    sys.exit(f"{name} never ended")


if __name__ == "__main__":
    for operation in OPERATIONS:
        print(deaths(Path(sys.argv[1]), Path(sys.argv[2]), operation), operation)
