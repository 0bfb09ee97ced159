"""``host:port``, as users and pods write it and as URLs and gRPC want it: one reader and one writer.

Its law: only the standard library, for the embedded Triton and the operator's endpoint stand on it too.
"""

import re
from ipaddress import IPv6Address

from gravswell.errors import InvalidInputError


def split(address: str) -> tuple[str, int]:
    """Host and port of ``address``; an IPv6 host has no brackets here.

    It may come without them too, as Kubernetes makes it of ``$(POD_IP):8090``: what follows the last colon is the port.
    Raises :class:`InvalidInputError` for a text that is no address.
    """
    found = re.fullmatch(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<bare>[^\[\]]+)):(?P<port>[0-9]{1,5})", address)
    host = found and (found["bracketed"] or found["bare"])
    if not found or not host or int(found["port"]) > 65535 or (":" in host and not _is_ipv6(host)):
        raise InvalidInputError(f"{address!r} is no address: write host:port, as 127.0.0.1:8090 or [::1]:8090")
    return host, int(found["port"])


def join(host: str, port: int | str) -> str:
    """``host:port``, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
