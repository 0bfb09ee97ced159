"""Writers and readers of one repository, each a process of its own, killed at random moments; run by ``test_races.py``.

``python racing.py SCENARIO ROOT MODEL.onnx LOGS SEED KILLS``. Everything is imported once and each process forked from
that, so that hundreds can be killed in seconds. Each appends what it did to a file in LOGS, line by line. After the
last kill they go on until they have done what :data:`ENOUGH` says: a busy machine may be killed at every attempt. One
that fails by itself, with an error that the race does not explain, ends the run with its traceback.
"""

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnxruntime  # noqa: F401 - before the forks

from gravswell import quiver as qv
from gravswell.errors import ConflictError, NotFoundError
from gravswell.quiver import exporters  # noqa: F401 - likewise
from gravswell.quiver.reader import RepositoryReader

Act = Callable[[str, str, Callable[[str], None]], None]
ENTRY = "m"


def export(root: str, model: str, log: Callable[[str], None]) -> None:
    """Export a version of the entry, if there is one, and log its number once it is said to be published."""
    entry = qv.ModelRepository.open(root).models.get(ENTRY)
    if entry is not None:
        path = entry.export_version(model)
        log(f"published {Path(path).parent.name}")


def make_and_export(root: str, model: str, log: Callable[[str], None]) -> None:
    """As :func:`export`, in a repository and an entry that are made where they are missing."""
    repository = qv.ModelRepository(root)
    if ENTRY not in repository.models:
        repository.add(ENTRY)
    export(root, model, log)


def remove(root: str, model: str, log: Callable[[str], None]) -> None:
    """Remove the entry and add it again, or replace it, or remove one version of it."""
    del model
    time.sleep(random.uniform(0, 0.1))
    repository = qv.ModelRepository.open(root)
    choice = random.random()
    if choice < 0.3:
        repository.remove(ENTRY)
        time.sleep(random.uniform(0, 0.02))
        repository.add(ENTRY)
    elif choice < 0.6:
        repository.add(ENTRY, force=True)
    else:
        entry = repository.models.get(ENTRY)
        versions = entry.versions if entry is not None else []
        if entry is None:
            repository.add(ENTRY)
        elif versions:
            log(f"removing {versions[-1]}")
            entry.remove_version(versions[-1])


def delete(root: str, model: str, log: Callable[[str], None]) -> None:
    """Remove the whole repository."""
    del model, log
    time.sleep(random.uniform(0, 0.2))
    qv.ModelRepository.open(root).delete()


def read(root: str, model: str, log: Callable[[str], None]) -> None:
    """Whatever lists is an entry of whole versions, and can be fetched until it is removed."""
    del model
    reader = RepositoryReader(root)
    for name in reader.entries():
        assert name == ENTRY, name
        for info in reader.versions(name):
            assert info.digest is not None, f"{info} is listed without its manifest"
            with tempfile.TemporaryDirectory() as folder:
                manifest = reader.fetch(name, info.number, Path(folder, "copy"))
            assert manifest is not None, f"{info} was fetched as somebody else's"
            log(f"read {info.number}")


SCENARIOS: dict[str, tuple[Act, ...]] = {
    "remove": (export, export, remove, remove, read),
    "delete": (make_and_export, make_and_export, delete, read),
}
ENOUGH = {"remove": {"published": 21, "read": 1}, "delete": {"published": 1}}
"""Of each scenario: so many lines of each kind."""
LAST_SECONDS = 90.0
"""How long they may take for that after the last kill."""


def main(scenario: str, root: str, model: str, logs: str, seed: str, kills: str) -> None:
    """Run the scenario until so many processes were killed."""
    random.seed(int(seed))
    acts = SCENARIOS[scenario]
    running = {_fork(act, root, model, logs): act for act in acts}
    try:
        for _ in range(int(kills)):
            time.sleep(random.uniform(0.01, 0.25))
            _check(running)
            pid = random.choice([pid for pid, act in running.items() if act is not read])
            act = running.pop(pid)
            _kill(pid)
            running[_fork(act, root, model, logs)] = act
        end = time.monotonic() + LAST_SECONDS
        while not _enough(Path(logs), ENOUGH[scenario]) and time.monotonic() < end:
            time.sleep(0.1)
            _check(running)
    finally:
        for pid in running:
            _kill(pid)


def _check(running: dict[int, Act]) -> None:
    """SystemExit if a process ended by itself."""
    for pid in running:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            name = running.pop(pid).__name__
            raise SystemExit(f"{name}: a process ended by itself")


def _enough(logs: Path, wanted: dict[str, int]) -> bool:
    found = Counter(line.split(maxsplit=1)[0] for path in logs.iterdir() for line in path.read_text().splitlines())
    return all(found[kind] >= count for kind, count in wanted.items())


def _fork(act: Act, root: str, model: str, logs: str) -> int:
    seed, parent = random.random(), os.getpid()
    pid = os.fork()
    if pid:
        return pid
    random.seed(seed)
    try:
        with Path(logs, f"{act.__name__}-{os.getpid()}").open("a", buffering=1) as log:
            while os.getppid() == parent:
                try:
                    act(root, model, lambda line: print(line, file=log))
                except (NotFoundError, ConflictError) as error:
                    print(f"refused {error}", file=log)
    except BaseException:  # noqa: BLE001 - told, and never back into the parent's code
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
