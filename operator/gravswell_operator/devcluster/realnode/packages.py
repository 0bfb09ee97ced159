"""What a real node needs of Debian's packages. They are had outside its machine, whose network leads nowhere."""

from pathlib import Path

from gravswell_operator.devcluster.debian import ensure_packages, unpacked

CNI_PROGRAMS = "/usr/lib/cni"
_PACKAGES = {
    "runc": "runc",
    "containernetworking-plugins": f"{CNI_PROGRAMS}/ptp",
    "nftables": "nft",
    "iptables": "iptables",
    "ipset": "ipset",
}


def node_packages() -> Path:
    """Install what is missing, and return a program that needs no libraries: busybox, for pods' own processes.

    The machine's busybox would be the one with libraries wherever an initial RAM disk is built with it.

    Raises :class:`UnavailableError` where they cannot be had.
    """
    ensure_packages(_PACKAGES, what="a real node")
    return unpacked("busybox-static") / "bin/busybox"
