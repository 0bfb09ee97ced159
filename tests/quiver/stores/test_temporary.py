"""The folder in which a version for a bucket is built."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gravswell.errors import AccessDeniedError, UnavailableError
from gravswell.quiver.stores.temporary import temporary_stage


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


DIE = """
import os, signal
from gravswell.quiver.stores.temporary import temporary_stage
with temporary_stage() as stage:
    (stage / "model.onnx").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_and_a_living_one_s_stays(temporary: Path) -> None:
    with temporary_stage() as living:
        (living / "model.onnx").write_bytes(b"whole")
        environment = os.environ | {"TMPDIR": str(temporary)}
        writer = subprocess.run([sys.executable, "-c", DIE], env=environment, timeout=60, check=False)
        assert writer.returncode == -signal.SIGKILL
        assert len([*temporary.rglob("model.onnx")]) == 2
        with temporary_stage() as stage:
            assert not [*stage.iterdir()]
            assert [*temporary.rglob("model.onnx")] == [living / "model.onnx"]
    assert not [path for path in temporary.rglob("*") if path.is_file()]


def test_nobody_else_reads_it(temporary: Path) -> None:
    with temporary_stage() as stage:
        assert [path.stat().st_mode & 0o077 for path in stage.parents if path.parent == temporary] == [0]


def test_a_folder_that_somebody_else_put_there(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / f"gravswell-{os.getuid()}").symlink_to(temporary / "elsewhere")
    with pytest.raises(AccessDeniedError, match=r"belongs to somebody else.*TMPDIR"), temporary_stage():
        pass


def test_no_room(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "not there"))
    with pytest.raises(UnavailableError, match="TMPDIR"), temporary_stage():
        pass
