import dataclasses

import pytest

from gravswell.errors import UnsupportedError
from gravswell.serving.triton.support import Machine, require_support

GOOD = Machine(system="Linux", architecture="x86_64", glibc=(2, 36), python=(3, 11))


def test_supported_machines_pass() -> None:
    require_support(GOOD)
    require_support(dataclasses.replace(GOOD, glibc=(2, 35), python=(3, 12)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"system": "Darwin"}, "this is Darwin"),
        ({"architecture": "aarch64"}, "this machine is aarch64"),
        ({"glibc": None}, "another C library"),
        ({"glibc": (2, 31)}, "this system has 2.31"),
        ({"python": (3, 13)}, "this is 3.13"),
    ],
)
def test_others_are_told_what_is_missing_and_what_still_works(change: dict[str, object], told: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        require_support(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]
    assert told in str(caught.value)
    assert "exporting, verifying and listing models work here" in str(caught.value)


def test_this_machine_is_described() -> None:
    assert Machine.this().python >= (3, 11)
