from fractions import Fraction

import pytest

from gravswell.errors import InvalidInputError
from gravswell_operator.devcluster.node.quantity import in_units, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("500m", Fraction(1, 2)), ("1.5Gi", 1536 * 1024**2), ("1e3", 1000), ("3k", 3000), ("1E", 10**18)],
)
def test_quantities_are_exact(text, value):
    assert parse(text) == value


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "Gi"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(InvalidInputError, match="not a quantity"):
        parse(text)


def test_units_round_up():
    assert in_units("1001m", "1") == 2
