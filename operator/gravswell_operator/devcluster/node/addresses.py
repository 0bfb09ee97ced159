"""Loopback addresses for pods: each pod its own, so that every one may listen on the same ports."""

import secrets
from socket import SO_REUSEADDR, SOL_SOCKET, socket


class Addresses:
    """Hands out addresses of 127.64.0.0 to 127.254.255.255, at random.

    Clusters on one machine do not know of one another; among twelve million addresses they do not need to.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self) -> str:
        """Return an address that no other pod of this node has."""
        while True:
            address = f"127.{64 + secrets.randbelow(191)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
            if address not in self._taken:
                self._taken.add(address)
                return address

    def release(self, address: str) -> None:
        """Give ``address`` back."""
        self._taken.discard(address)


def refusal(address: str, port: int) -> OSError | None:
    """Why nothing can listen on TCP ``port`` of a pod's ``address``; None where it can.

    The address is the pod's own, so in its way is only a program that listens on *every* address of this machine.
    """
    with socket() as probe:
        probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error
    return None
