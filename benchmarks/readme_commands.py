"""Cold and warm time of the README's two commands, in a fresh clone with a fresh virtual environment.

Cold means that nothing of the project, of Go or of pip is cached: every cache is a new folder. Warm repeats the command
in the same clone. Of the demo it tells too how long each kind that it applies took until it was Ready, and is held to
bars, on two cores: the demo's command takes at most 600 s cold and 60 s warm. Run it on an idle machine:
``python benchmarks/readme_commands.py [demo|tests] [--cold]``.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bars import at_most, hold

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = {"demo": "Quick start", "tests": "Tests"}
CACHES = {"GRAVSWELL_CACHE": "gravswell", "GOCACHE": "go-build", "GOMODCACHE": "go-mod", "PIP_CACHE_DIR": "pip"}
BARS = {"demo": {"cold": 600.0, "warm": 60.0}}
"""Seconds."""
KINDS = {"GPUNodePool", "ModelRepository", "InferenceServer", "Model"}
_READY_ROW = re.compile(r"^(\w+) +[│|] +\S+ +[│|] +True +[│|].*[│|] +(\d+\.\d)$", re.M)
"""Of the demo's table: kind, name, Ready, reason, and the seconds since all of it was applied."""


def command_under(heading: str) -> str:
    """The first shell command below ``heading`` in the README."""
    match = re.search(rf"^## {heading}$.*?^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    if match is None:
        raise SystemExit(f"README.md has no command under '## {heading}'")
    return match.group(1).strip()


def timed(command: str, cwd: Path, env: dict[str, str]) -> tuple[float, str]:
    """Seconds that ``command`` takes, and what it says, which is added to ``run.log``; a failure ends the benchmark."""
    started = time.monotonic()
    with (cwd / "run.log").open("ab") as log:
        before = log.tell()
        status = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], check=False, cwd=cwd, env=env, stdout=log, stderr=log
        )
    seconds = time.monotonic() - started
    said = (cwd / "run.log").read_bytes()[before:].decode(errors="replace")
    if status.returncode:
        raise SystemExit(f"{command!r} failed after {seconds:.1f} s; the end of its output:\n{said[-40_000:]}")
    return seconds, said


def until_ready(said: str) -> dict[str, float]:
    """Seconds from ``kubectl apply`` to Ready by kind, of what the demo said."""
    found = {kind: float(seconds) for kind, seconds in _READY_ROW.findall(said)}
    if found.keys() != KINDS:
        raise SystemExit(f"the demo shows as Ready {sorted(found)}, which should be {sorted(KINDS)}")
    return found


def missed(figures: dict[str, dict[str, dict[str, Any]]]) -> Iterator[str]:
    """The lines of the bars that are missed, of the passes that were run."""
    for name, passes in figures.items():
        for kind, bar in BARS.get(name, {}).items():
            if kind in passes:
                yield from at_most(f"{name}, {kind}", passes[kind]["seconds"], bar, " s")


def main() -> None:
    """Time the named commands, cold and warm, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", choices=[*HEADINGS, []], default=["demo"])
    parser.add_argument("--cold", action="store_true", help="only the first run, not its repetition")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for name in arguments.commands:
        with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
            clone = Path(scratch, "clone")
            subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
            env = os.environ | {variable: str(Path(scratch, folder)) for variable, folder in CACHES.items()}
            command = command_under(HEADINGS[name])
            figures[name] = {}
            for kind in ("cold", "warm")[: 1 if arguments.cold else 2]:
                seconds, said = timed(command, clone, env)
                ready = {"ready": until_ready(said)} if name == "demo" else {}
                figures[name][kind] = {"seconds": round(seconds, 1), **ready}
                print(name, kind, figures[name][kind], file=sys.stderr, flush=True)  # an hour before the next
            # Go writes its module cache read-only; without this the folder could not be deleted.
            subprocess.run(["chmod", "-R", "u+w", scratch], check=True)
    print(json.dumps(figures, indent=2))
    hold(missed(figures))


if __name__ == "__main__":
    main()
