import subprocess
import sys
from pathlib import Path

import pytest

from gravswell.cache import cache_dir, locked, require_free_space
from gravswell.errors import UnavailableError


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAVSWELL_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b"
    assert cache_dir().is_dir()
    monkeypatch.delenv("GRAVSWELL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir().is_relative_to(tmp_path)


def test_a_cache_that_cannot_be_made_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAVSWELL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UnavailableError, match="GRAVSWELL_CACHE"):
        cache_dir()


def test_a_lock_excludes_other_processes_and_is_freed_when_its_holder_is_killed(tmp_path: Path) -> None:
    script = f"""
import pathlib, sys
from gravswell.cache import locked
with locked(pathlib.Path({str(tmp_path / "thing")!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1.5)  # it waits: nothing is printed until the first one is gone
            first.kill()
            assert second.stdout.readline() == "held\n"
            second.kill()
    with locked(tmp_path / "thing"):
        pass


def test_free_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    require_free_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(UnavailableError, match=f"{tmp_path}/not needs .* MB free"):
        require_free_space(tmp_path / "not", 10**18)
