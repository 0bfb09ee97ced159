"""Where a sequence is cut: the heaviest slice is as light as can be, every slice has a layer, little goes across."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from gravswell.partitions.cuts import SLACK, cut

ITEM = st.tuples(st.integers(0, 20), st.booleans(), st.integers(1, 5))


def _slices(items: list[tuple[int, bool, int]], ends: list[int]) -> list[list[tuple[int, bool, int]]]:
    return [items[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@settings(max_examples=60)
@given(st.lists(ITEM, min_size=1, max_size=9), st.integers(1, 4))
def test_against_every_other_way(items: list[tuple[int, bool, int]], slices: int) -> None:
    weights, layers, crossing = ([item[k] for item in items] for k in range(3))
    if sum(layers) < slices:
        return
    every = [_slices(items, [*inner, len(items)]) for inner in combinations(range(1, len(items)), slices - 1)]
    ways = [way for way in every if all(any(item[1] for item in one) for one in way)]
    lightest = min(max(sum(item[0] for item in one) for one in way) for way in ways)
    ends = cut(weights, [bool(layer) for layer in layers], crossing, slices)
    made = _slices(items, ends)
    assert made in ways
    assert max(sum(item[0] for item in one) for one in made) <= lightest * (1 + SLACK) + 1e-9


def test_fewer_tensors_go_across_where_the_weights_are_about_the_same() -> None:
    assert cut([10, 10, 1, 10, 10], [True] * 5, [1, 4, 1, 4, 1], 2) == [3, 5]
    assert cut([1, 1, 1, 1], [True] * 4, [1, 1, 1, 1], 4) == [1, 2, 3, 4]
    assert cut([100, 1, 1, 1, 1], [True] * 5, [1] * 5, 3) == [1, 3, 5]  # the others are even too
