"""Debian's packages that a real node needs: found, or installed."""

import os
import shutil
import subprocess
from pathlib import Path

from gravswell.errors import UnavailableError

_PACKAGES = {
    "runc": Path("/usr/sbin/runc"),
    "containernetworking-plugins": Path("/usr/lib/cni/ptp"),
    "nftables": Path("/usr/sbin/nft"),
    "busybox-static": Path("/bin/busybox"),
}
"""Package, and a file by which it is seen to be there."""


def ensure_packages() -> None:
    """Install what is missing. Raises :class:`UnavailableError` where that fails, or where there is no ``apt-get``."""
    missing = [package for package, file in _PACKAGES.items() if not file.exists()]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"a real node needs {', '.join(missing)}, by Debian's names; install them")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode != 0:
            raise UnavailableError(f"apt-get {' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
