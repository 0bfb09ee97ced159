"""How far a variant is away, and what is too far: tables."""

import numpy as np
import pytest

from gravswell.errors import InvalidInputError, VerificationError
from gravswell.quiver.golden import bounds
from gravswell.quiver.manifest import VariantError
from gravswell.quiver.variants.measure import judge, measure

SCORES = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)


def test_differences_are_of_all_batches() -> None:
    near, far = SCORES + np.float32(0.01), SCORES + np.float32(0.09)
    error = measure([{"s": SCORES}, {"s": SCORES}], [{"s": near}, {"s": far}])["s"]
    assert error.max_abs == pytest.approx(0.09, abs=1e-6)
    assert error.max_rel == pytest.approx(0.9, abs=1e-5)
    assert error.of_scale == pytest.approx(0.1, abs=1e-6)
    assert error.agreement == 1.0


def test_agreement_is_of_the_largest_score() -> None:
    flipped = np.array([[0.9, 0.1], [0.6, 0.4]], np.float32)
    assert measure([{"s": SCORES}], [{"s": flipped}])["s"].agreement == 0.5


def test_labels_agree_or_not() -> None:
    error = measure([{"l": np.array([1, 2, 3, 4])}], [{"l": np.array([1, 2, 3, 5])}])["l"]
    assert (error.max_abs, error.of_scale, error.agreement) == (0.0, 0.0, 0.75)
    assert measure([{"t": np.array(["a", "b"])}], [{"t": np.array([b"a", "b"], object)}])["t"].agreement == 0.5


def test_one_column_or_three_axes_have_no_largest_score() -> None:
    one, deep = np.ones((3, 1), np.float32), np.ones((2, 3, 4), np.float32)
    assert measure([{"y": one, "z": deep}], [{"y": one, "z": deep}])["z"].agreement is None
    assert measure([{"y": one}], [{"y": one}])["y"].agreement is None


def test_zeros_that_became_something_are_wholly_wrong() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert measure([{"y": zeros}], [{"y": zeros}])["y"].of_scale == 0.0
    assert measure([{"y": zeros}], [{"y": zeros + 1}])["y"].of_scale == 1.0


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (np.array([[np.inf, 0.1], [0.2, 0.8]], np.float32), "NaN or infinite"),
        (np.array([[np.nan, 0.1], [0.2, 0.8]], np.float32), "NaN or infinite"),
        (SCORES[:1], r"has shape \[1, 2\]"),
    ],
)
def test_what_cannot_be_compared_is_an_error(got: np.ndarray, words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(VerificationError, match=words):
        measure([{"s": SCORES}], [{"s": got}])


def test_infinities_in_their_places_are_no_difference() -> None:
    both = np.array([[np.inf, np.nan, 1.0]], np.float32)
    assert measure([{"y": both}], [{"y": both}])["y"].max_abs == 0.0
    with pytest.raises(VerificationError, match="another of these"):
        measure([{"y": both}], [{"y": both * np.float32(-1)}])


def _error(of_scale: float = 0.0, agreement: float | None = None) -> VariantError:
    return VariantError(max_abs=of_scale * 2, max_rel=of_scale, of_scale=of_scale, agreement=agreement)


@pytest.mark.parametrize(
    ("errors", "max_error", "min_agreement", "words"),
    [
        ({"y": _error(0.06)}, 0.05, None, r"output y differs by up to 0.12 \(6.00%.*at most 5.00%.*--calibration"),
        ({"y": _error(0.01, 0.9)}, 0.05, 0.95, r"agrees on 90.00%.*at least"),
        ({"y": _error(0.01), "l": _error(0.0, 0.9)}, 0.05, 0.95, "output l"),
        ({"l": _error(0.0, 0.9)}, 0.05, None, "says nothing else"),
    ],
)
def test_too_far_is_told_with_the_figures(
    errors: dict[str, VariantError], max_error: float, min_agreement: float | None, words: str
) -> None:
    with pytest.raises(VerificationError, match=f"(?s){words}"):
        judge(errors, max_error=max_error, min_agreement=min_agreement, rows=10)


def test_an_agreement_of_nothing_is_told() -> None:
    with pytest.raises(InvalidInputError, match=r"min_agreement=0.99 is of scores.*max_error bounds y"):
        judge({"y": _error(0.01)}, max_error=0.05, min_agreement=0.99, rows=10)


def test_a_label_is_told_without_a_size() -> None:
    assert _error(0.0, 0.9).told() == "agrees on 90.00%"


@pytest.mark.parametrize(
    "errors",
    [
        {"y": _error(0.05)},
        {"y": _error(0.01, 0.5)},  # measured, and no bound was asked for
        {"y": _error(0.01), "l": _error(0.0, 0.5)},
        {"l": _error(0.0, 1.0)},
    ],
)
def test_near_enough(errors: dict[str, VariantError]) -> None:
    judge(errors, max_error=0.05, min_agreement=None, rows=10)


def test_bounds_follow_each_output_and_never_fall_below_rounding() -> None:
    outputs = {"big": np.full((2, 2), 100.0, np.float32), "zero": np.zeros((2, 2), np.float32), "label": np.arange(2)}
    assert bounds([outputs], 0.01) == {"big": pytest.approx(1.0), "zero": 1e-5}
