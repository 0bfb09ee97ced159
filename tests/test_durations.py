"""Durations: the one grammar of the command line and of the custom resources."""

import pytest

from gravswell.durations import seconds
from gravswell.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "length"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("1h0m1s", 3601), ("2h3m4s", 7384), ("0s", 0), ("9999h", 35996400)],
)
def test_durations(text: str, length: int):
    assert seconds(text) == length


@pytest.mark.parametrize("text", ["", "30", "1d", "-5s", "5m ", "5m\n", "s", "1m1h", "\u0663s", "10000h"])
def test_what_is_no_duration(text: str):
    with pytest.raises(InvalidInputError, match="write 30s, 5m or 1h30m"):
        seconds(text)


def test_what_is_too_short():
    assert seconds("5s", at_least=5) == 5
    with pytest.raises(InvalidInputError, match="'4s' is no interval: write 30s"):
        seconds("4s", at_least=5)
