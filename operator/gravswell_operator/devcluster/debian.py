"""Debian's packages that something here needs: found, installed or unpacked, beside whoever else uses apt."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from gravswell.cache import cache_dir, locked
from gravswell.errors import UnavailableError

_LOCK_SECONDS = 600.0  # what a machine upgrades by itself after its start may take so long
_COMMAND_SECONDS = 900.0
_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def ensure_packages(wanted: Mapping[str, str], *, what: str) -> None:
    """Install the packages whose program is missing.

    Args:
        wanted: package, and the program (a name, or a path) by which it is seen to be there.
        what: who needs them, for messages.

    Raises:
        UnavailableError: that fails, or there is no ``apt-get``.
    """
    missing = [package for package, program in wanted.items() if shutil.which(program, path=_SEARCHED) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"{what} needs {', '.join(missing)}, by Debian's names; install them")
    apt_get("update")
    apt_get("install", "--yes", "--no-install-recommends", *missing)


def unpacked(package: str) -> Path:
    """Return a folder of the cache with a package's files, for programs that the machine itself shall not have.

    Raises :class:`UnavailableError` where it cannot be had.
    """
    folder = cache_dir() / f"{package}-debian"
    with locked(folder):
        if not folder.exists():
            staged = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            try:
                apt_get("download", package, directory=staged)
            except UnavailableError:  # a new machine has no lists yet, and old ones name what is gone
                apt_get("update")
                apt_get("download", package, directory=staged)
            (archive,) = staged.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, staged], check=True)
            archive.unlink()
            staged.replace(folder)
    return folder


def apt_get(*arguments: str, directory: Path | None = None) -> None:
    """Run ``apt-get`` in ``directory``; while another program holds apt's locks, wait for it, ten minutes at most.

    Raises :class:`UnavailableError` with apt's own words.
    """
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    end = time.monotonic() + _LOCK_SECONDS
    with locked(cache_dir() / "apt"):  # ours take turns without asking again and again
        while True:
            try:
                done = subprocess.run(
                    ["apt-get", "-qq", *arguments],
                    cwd=directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=_COMMAND_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise UnavailableError(f"apt-get {' '.join(arguments)} did not end; look at the network") from None
            if done.returncode == 0:
                return
            held = re.search(r"Could not get lock|Unable to (acquire|lock)", done.stderr)
            if held is None or time.monotonic() > end:
                raise UnavailableError(f"apt-get {' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")
            time.sleep(1)
