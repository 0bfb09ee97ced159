"""Addresses for pods: each pod its own, so that every one may listen on the same ports."""

import secrets
from ipaddress import IPv4Network
from socket import SO_REUSEADDR, SOL_SOCKET, socket

LOOPBACK = IPv4Network("127.128.0.0/9")
"""Addresses that this machine has without any doing, and that are nobody else's: EndpointSlices refuse them."""


class Addresses:
    """Hands out addresses of ``network``, all of which this machine must have, at random.

    Clusters on one machine do not know of one another; among eight million addresses they do not need to.
    """

    def __init__(self, network: IPv4Network = LOOPBACK) -> None:
        self._network = network
        self._taken: set[str] = set()

    def take(self) -> str:
        """Return an address that no other pod of this node has."""
        while True:
            address = str(self._network[1 + secrets.randbelow(self._network.num_addresses - 2)])
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
