"""An exporting process that is killed, or cut off, at requests to each bucket server. See ``dying_requests.py``.

``GRAVSWELL_FAULTS=all`` in the environment takes every request of an export, and not only some.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gravswell import quiver as qv

from .dying_requests import SOME
from .emulators import Server

ABOVE = Path(__file__).parents[2]
"""Whence the program is run: from the root, a package ``tests`` that somebody installed would come first."""


@pytest.mark.timeout(1800)
def test_an_export_that_ends_at_a_request(server: Server, bucket: str, given: Path) -> None:
    url = f"{bucket}/r"
    qv.ModelRepository(url).add("m").export_version(given)
    which = "all" if os.environ.get("GRAVSWELL_FAULTS") else "some"
    command = [sys.executable, "-m", "quiver.stores.dying_requests", url, server.endpoint, str(given), which]
    done = subprocess.run(command, cwd=ABOVE, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr
    ended = {how: int(count) for count, how in (line.split(" ", 1) for line in done.stdout.splitlines())}
    assert ended.keys() == SOME.keys()
    # the requests were counted before versions had been removed: what is remembered since may change them by one
    assert all(ended[how] >= count - 1 for how, count in SOME.items()), ended
