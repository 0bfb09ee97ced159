"""What torch prints while it exports, which is nobody's output."""

import ctypes
import os
import subprocess
import sys
import threading

import pytest
import torch

from gravswell import quiver as qv
from gravswell.errors import ExportError
from gravswell.quiver.exporters.torch import noise

from .modules import module


def test_what_torch_prints_of_a_graph_that_it_fails_at_is_not_shown(
    entry: qv.Entry, capfd: pytest.CaptureFixture[str]
) -> None:
    """Past Python, and among the command line's JSON."""
    with pytest.raises(ExportError, match="linalg_inv"):
        entry.export_version(module(lambda s, x: torch.linalg.inv(x)), input_shapes={"x": (None, 3, 3)})
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""


def test_two_threads_that_export_leave_the_output_as_it_was() -> None:
    def export() -> None:
        with noise.quiet(), noise.without_graphs():
            entered.set()
            leave.wait(60)

    entered, leave, other = threading.Event(), threading.Event(), threading.Thread(target=export)
    output, file = sys.stdout, os.fstat(1)
    with noise.quiet(), noise.without_graphs():
        other.start()
        entered.wait(0.2)  # it would come in now
    leave.set()
    other.join(60)
    assert sys.stdout is output
    assert os.path.samestat(os.fstat(1), file)


_WITHOUT_OUTPUT = """
import os
from gravswell.quiver.exporters.torch import noise
os.close(0)
os.close(1)
with noise.without_graphs():
    os.write(1, b"a graph")  # into no file of anybody's
for number in (0, 1):
    try:
        os.fstat(number)
    except OSError:
        continue
    raise SystemExit(f"{number} was closed, and is open")
"""


def test_an_output_that_is_closed_stays_closed() -> None:
    """As a service's may be."""
    command = [sys.executable, "-c", _WITHOUT_OUTPUT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
