import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravswell.errors import InvalidInputError
from gravswell_operator.quantities import equal, in_units, parse


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1000m"), ("2Gi", "2048Mi"), ("1.5", "1500m"), ("1k", "1000"), (1, "1"), ("0.1", "100m"), ("1e3", "1k")],
)
def test_the_same_amount(one, other):
    assert equal(one, other)


@pytest.mark.parametrize(("one", "other"), [("1", "1001m"), ("1G", "1Gi"), ("1", "x")])
def test_another_amount(one, other):
    assert not equal(one, other)


@pytest.mark.parametrize("text", ["", "Gi", "1Zi", "one", "1 Gi", "1gi", "1Gi\n"])
def test_no_quantity(text):
    with pytest.raises(InvalidInputError, match="not a quantity"):
        parse(text)


@given(st.integers(0, 10**12))
def test_milli_is_a_thousandth(number):
    assert parse(f"{number}m") * 1000 == number


@pytest.mark.parametrize(
    ("quantity", "divisor", "units"),
    [
        ("1001m", "1", 2),
        ("1500m", "1m", 1500),
        ("1Gi", "1Mi", 1024),
        ("1", "3", 1),
        ("9E", "1n", 9 * 10**27),
        ("0", "1", 0),
    ],
)
def test_units_are_whole_and_round_up(quantity, divisor, units):
    assert in_units(quantity, divisor) == units
