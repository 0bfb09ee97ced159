from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gravswell.errors import InvalidInputError, VerificationError
from gravswell.quiver.golden import Sample, compare, load_golden, save_golden, tolerance


def _one(value: object) -> dict[str, np.ndarray]:
    return {"y": np.asarray(value)}


def test_keys_and_round_trip(tmp_path: Path) -> None:
    samples = [
        Sample({"x": np.ones((k, 3), np.float32), "a/b:0": np.arange(k)}, {"y": np.array(["ä", "bc"], object)})
        for k in (1, 2)
    ]
    save_golden(tmp_path / "g.npz", samples)
    with np.load(tmp_path / "g.npz", allow_pickle=False) as stored:
        assert sorted(stored.files) == [
            *("0/inputs/a/b:0", "0/inputs/x", "0/outputs/y"),
            *("1/inputs/a/b:0", "1/inputs/x", "1/outputs/y"),
        ]
    loaded = load_golden(tmp_path / "g.npz")
    assert loaded[1].inputs["x"].shape == (2, 3)
    assert loaded[0].outputs["y"].tolist() == ["ä", "bc"]
    compare(samples[0].outputs, loaded[0].outputs)
    save_golden(tmp_path / "again.npz", samples)
    assert (tmp_path / "g.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_what_npz_cannot_keep_is_refused(tmp_path: Path) -> None:
    for value in ("ends in nul\0", b"\xff\xfe"):
        with pytest.raises(InvalidInputError, match="tensor y"):
            save_golden(tmp_path / f"{len(value)}.npz", [Sample({}, _one(np.array([value], object)))])


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 broken"])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.npz").write_bytes(content)
    with pytest.raises(VerificationError, match="damaged"):
        load_golden(tmp_path / "g.npz")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", **{"0/inputs/x": np.array([object()], dtype=object)})
    with pytest.raises(VerificationError):
        load_golden(tmp_path / "g.npz")


def test_small_differences_pass_and_are_measured() -> None:
    errors = compare(_one(np.float32([1.0, 100.0])), _one(np.float32([1.0, 100.001])))
    assert errors["y"].max_abs == pytest.approx(0.001, rel=0.01)
    assert errors["y"].max_rel == pytest.approx(1e-5, rel=0.01)


def test_near_zero_beside_large_values_is_rounding() -> None:
    compare(_one(np.float32([1000.0, 0.0])), _one(np.float32([1000.0, 0.005])))
    with pytest.raises(VerificationError):
        compare(_one(np.float32([1.0, 0.0])), _one(np.float32([1.0, 0.005])))


@pytest.mark.parametrize(
    ("expected", "got", "fact"),
    [
        (np.float32([1]), np.float32([2]), "1 of 1 values differ, by up to 1"),
        (np.float32([1]), np.float32([np.nan]), "NaN"),
        (np.float32([np.nan]), np.float32([1]), "NaN"),
        (np.float32([np.inf]), np.float32([-np.inf]), "infinite"),
        (np.float32([np.inf]), np.float32([3e38]), "infinite"),
        (np.int64([1, 2]), np.int64([1, 3]), "1 of 2 values differ"),
        (np.array([True]), np.array([False]), "1 of 1"),
        (np.array(["a", "b"]), np.array([b"a", b"c"], object), "1 of 2 strings"),
        (np.float32([1]), np.int64([1]), "type int64"),
        (np.zeros((2, 1)), np.zeros(2), "shape"),
    ],
)
def test_differences_are_named(expected: np.ndarray, got: np.ndarray, fact: str) -> None:
    with pytest.raises(VerificationError, match=f"output y.*{fact}"):
        compare({"y": expected}, {"y": got})


def test_a_missing_output_is_named_and_a_further_one_is_fine() -> None:
    with pytest.raises(VerificationError, match="no output y; there are: z"):
        compare(_one(1.0), {"z": np.array(1.0)})
    compare(_one(1.0), {"y": np.array(1.0), "z": np.array(1.0)})


@given(npst.arrays(st.sampled_from([np.float16, np.float32, np.float64, np.int32]), npst.array_shapes(min_side=0)))
def test_everything_equals_itself(array: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        errors = compare(_one(array), _one(array.copy()))
    assert errors["y"].max_abs == 0.0


def test_tolerance_by_type() -> None:
    assert tolerance(np.dtype(np.int64)) == (0.0, 0.0)
    assert tolerance(np.dtype(np.float16)) > tolerance(np.dtype(np.float32)) > tolerance(np.dtype(np.float64))
