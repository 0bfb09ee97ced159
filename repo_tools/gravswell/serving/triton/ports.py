"""The ports of a server, and free ones for those that its user leaves open."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from gravswell import addresses
from gravswell.errors import ConflictError, InvalidInputError


@dataclass(frozen=True)
class Ports:
    """The three ports of a server; 0 asks for any free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0


ANY_FREE = Ports()


@contextmanager
def held_ports(host: str, wanted: Ports) -> Iterator[Ports]:
    """Ports of the IP address ``host``, free ones for those that are 0; nobody else is given them in the block.

    Whoever lets addresses be used again, as Triton does, can listen on them meanwhile.
    Raises :class:`ConflictError` naming a wanted port that is taken, :class:`InvalidInputError` for an address that
    cannot be listened on.
    """
    chosen = []
    with ExitStack() as held:
        for name, port in vars(wanted).items():
            probe = held.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise ConflictError(
                        f"port {port} on {host} is taken by another program; "
                        f"choose another port for {name}, or 0 for any that is free"
                    ) from error
                raise InvalidInputError(
                    f"{addresses.join(host, port)} cannot be listened on for {name}: {error.strerror or error}"
                ) from error
            chosen.append(probe.getsockname()[1])
        yield Ports(*chosen)
