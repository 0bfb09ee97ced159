import fcntl
import threading
from pathlib import Path

import pytest

from gravswell.errors import UnavailableError
from gravswell_operator.devcluster import debian
from gravswell_operator.devcluster.debian import apt_get, ensure_packages


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAVSWELL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def update(tmp_path: Path) -> list[str]:
    """An update of lists that are empty, in a folder of the test's."""
    (tmp_path / "lists/partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": str(tmp_path / "lists"),
        "Dir::Cache": str(tmp_path),
    }
    return ["update", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]


def test_a_lock_that_another_program_holds_is_waited_for(tmp_path, update):
    with (tmp_path / "lists/lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        release = threading.Timer(2, fcntl.lockf, (lock, fcntl.LOCK_UN))
        release.start()
        apt_get(*update)
        release.join()


def test_a_lock_that_is_never_given_back_ends_with_apts_own_words(tmp_path, update, monkeypatch):
    monkeypatch.setattr(debian, "_LOCK_SECONDS", 0.5)
    with (tmp_path / "lists/lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match="Could not get lock"):
            apt_get(*update)


def test_what_is_there_is_not_installed(monkeypatch):
    monkeypatch.setattr(debian, "apt_get", lambda *arguments: pytest.fail(f"apt-get {arguments}"))
    ensure_packages({"dash": "sh", "coreutils": "/usr/bin/env"}, what="this test")


def test_without_apt_the_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="this test needs nowhere, by Debian's names"):
        ensure_packages({"nowhere": "no-such-program"}, what="this test")
