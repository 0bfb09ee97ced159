"""Durations: the one grammar of the command line and of the custom resources."""

from datetime import timedelta

import pytest

from gravswell.durations import seconds, span
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


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30d", timedelta(days=30)),
        ("0d", timedelta(0)),
        ("1h30m", timedelta(minutes=90)),
        ("45s", timedelta(seconds=45)),
    ],
)
def test_spans_may_be_days_too(text: str, length: timedelta):
    assert span(text) == length


@pytest.mark.parametrize("text", ["", "d", "3w", "1d12h", "-1d", "30d\n", "10000d"])
def test_what_is_no_span(text: str):
    with pytest.raises(InvalidInputError, match="is no length of time: write 30d, 12h or 1h30m"):
        span(text)
