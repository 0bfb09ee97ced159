"""``host:port``: what is taken, and how it is written."""

import pytest

from gravswell import addresses
from gravswell.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "host", "port", "written"),
    [
        ("10.0.0.7:8090", "10.0.0.7", 8090, "10.0.0.7:8090"),
        ("localhost:0", "localhost", 0, "localhost:0"),
        ("[::1]:80", "::1", 80, "[::1]:80"),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80, "[fe80::1%eth0]:80"),
        ("fd00::7:8090", "fd00::7", 8090, "[fd00::7]:8090"),  # as Kubernetes makes it of $(POD_IP):8090
        (":::8090", "::", 8090, "[::]:8090"),
    ],
)
def test_addresses(text: str, host: str, port: int, written: str) -> None:
    assert addresses.split(text) == (host, port)
    assert addresses.join(host, port) == written
    assert addresses.split(written) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "8090", "host:", ":1", "host:x", "host:70000", "::1", "[::1]", "[]:80", "[::1:80", "a:b:80"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no address: write host:port"):
        addresses.split(text)
