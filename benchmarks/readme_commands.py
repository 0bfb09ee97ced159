"""Cold and warm time of the README's two commands, in a fresh clone with a fresh virtual environment.

Cold means that nothing of the project, of Go or of pip is cached: every cache is a new folder. Warm repeats the command
in the same clone. Run it on an idle machine: ``python benchmarks/readme_commands.py [demo|tests] [--cold]``.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = {"demo": "Quick start", "tests": "Tests"}
CACHES = {"GRAVSWELL_CACHE": "gravswell", "GOCACHE": "go-build", "GOMODCACHE": "go-mod", "PIP_CACHE_DIR": "pip"}


def command_under(heading: str) -> str:
    """The first shell command below ``heading`` in the README."""
    match = re.search(rf"^## {heading}$.*?^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    if match is None:
        raise SystemExit(f"README.md has no command under '## {heading}'")
    return match.group(1).strip()


def timed(command: str, cwd: Path, env: dict[str, str]) -> float:
    """Seconds that ``command`` takes; its output goes to ``run.log``, and a failure ends the benchmark."""
    started = time.monotonic()
    with (cwd / "run.log").open("ab") as log:
        status = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], check=False, cwd=cwd, env=env, stdout=log, stderr=log
        )
    seconds = time.monotonic() - started
    if status.returncode:
        end = (cwd / "run.log").read_text()[-40_000:]
        raise SystemExit(f"{command!r} failed after {seconds:.1f} s; the end of its output:\n{end}")
    return seconds


def main() -> None:
    """Time the named commands, cold and warm, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", choices=[*HEADINGS, []], default=["demo"])
    parser.add_argument("--cold", action="store_true", help="only the first run, not its repetition")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for name in arguments.commands:
        with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
            clone = Path(scratch, "clone")
            subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
            env = os.environ | {variable: str(Path(scratch, folder)) for variable, folder in CACHES.items()}
            command = command_under(HEADINGS[name])
            figures[name] = {}
            for kind in ("cold", "warm")[: 1 if arguments.cold else 2]:
                figures[name][kind] = round(timed(command, clone, env), 1)
                print(name, kind, figures[name][kind], "s", file=sys.stderr, flush=True)  # an hour before the next
            # Go writes its module cache read-only; without this the folder could not be deleted.
            subprocess.run(["chmod", "-R", "u+w", scratch], check=True)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
