"""Every operation on a folder, killed by SIGKILL at every change that it makes of the disk. See ``dying.py``."""

import subprocess
import sys
from pathlib import Path

from .faults import OPERATIONS, prepare


def test_every_change_of_a_disk(tmp_path: Path, prebuilt: Path) -> None:
    prepare(tmp_path / "prepared", prebuilt)
    command = [sys.executable, "-m", "quiver.dying", str(tmp_path / "prepared"), str(prebuilt)]
    above = Path(__file__).parents[1]  # from the root, a package ``tests`` that somebody installed would come first
    done = subprocess.run(command, cwd=above, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    killed = {name: int(count) for count, name in (line.split(" ", 1) for line in done.stdout.splitlines())}
    assert killed.keys() == OPERATIONS.keys()
    assert min(killed.values()) > 2, killed
