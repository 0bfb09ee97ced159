import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravswell_operator.quantities import equal, parse


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1000m"), ("2Gi", "2048Mi"), ("1.5", "1500m"), ("1k", "1000"), (1, "1"), ("0.1", "100m"), ("1e3", "1k")],
)
def test_the_same_amount(one, other):
    assert equal(one, other)


@pytest.mark.parametrize(("one", "other"), [("1", "1001m"), ("1G", "1Gi"), ("1", "x")])
def test_another_amount(one, other):
    assert not equal(one, other)


@pytest.mark.parametrize("text", ["", "Gi", "1Zi", "one", "1 Gi"])
def test_no_quantity(text):
    with pytest.raises(ValueError, match="not a quantity"):
        parse(text)


@given(st.integers(0, 10**12))
def test_milli_is_a_thousandth(number):
    assert parse(f"{number}m") * 1000 == number
