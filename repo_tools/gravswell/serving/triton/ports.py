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
def held_port(host: str, port: int = 0) -> Iterator[int]:
    """A port of the IP address ``host``, a free one for 0; nobody else is given it in the block.

    Nobody listens there, so that connections are refused. Who lets addresses be used again, as most servers do, can
    listen there meanwhile, end, and listen again. OSError where it is taken, or where nobody can listen.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, port))
        yield place.getsockname()[1]


@contextmanager
def held_ports(host: str, wanted: Ports) -> Iterator[Ports]:
    """Ports of the IP address ``host`` for a Triton, held as by :func:`held_port`.

    Raises :class:`ConflictError` naming a wanted port that is taken, :class:`InvalidInputError` for an address that
    cannot be listened on.
    """
    chosen = []
    with ExitStack() as held:
        for name, port in vars(wanted).items():
            try:
                chosen.append(held.enter_context(held_port(host, port)))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise ConflictError(
                        f"port {port} on {host} is taken by another program; "
                        f"choose another port for {name}, or 0 for any that is free"
                    ) from error
                raise InvalidInputError(
                    f"{addresses.join(host, port)} cannot be listened on for {name}: {error.strerror or error}"
                ) from error
        yield Ports(*chosen)
