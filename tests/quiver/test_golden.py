import math
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydantic import ValidationError

from gravswell.errors import InvalidInputError, VerificationError
from gravswell.quiver import golden
from gravswell.quiver.golden import Sample, column_scales, compare, load_golden, save_golden, tolerance
from gravswell.quiver.manifest import OutputError, VerificationRecord


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


def test_near_zero_in_a_column_of_large_values_is_rounding() -> None:
    compare(_one(np.float32([1000.0, 0.0])), _one(np.float32([1000.0, 0.003])))
    compare(_one(np.float32([[1000.0], [0.0]])), _one(np.float32([[1000.0], [0.003]])))
    for large in (1.0, 100.0):
        with pytest.raises(VerificationError):
            compare(_one(np.float32([large, 0.0])), _one(np.float32([large, 0.003])))


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ([1e6, 0.3], [1e6, 5.0]),  # not even half right, and by more than rounding at 1e6
        ([[1e6, 0.3], [2e6, 0.6]], [[1e6, 0.0], [2e6, 0.0]]),
        ([[1e6, 0.3], [2e6, 0.6]], [[1e6, 0.301], [2e6, 0.6]]),
    ],
)
def test_a_large_value_excuses_nothing_beside_it(expected: object, got: object) -> None:
    with pytest.raises(VerificationError, match="values differ"):
        compare(_one(np.float32(expected)), _one(np.float32(got)))


def test_a_column_is_judged_by_all_its_rows() -> None:
    """A batch of one row says nothing of how large the sums behind a value near zero are."""
    expected, got = _one(np.float32([[0.01, 5.0]])), _one(np.float32([[0.011, 5.0]]))
    with pytest.raises(VerificationError):
        compare(expected, got)
    others = _one(np.float32([[1000.0, 4.0], [-900.0, np.nan]]))
    scales = column_scales([expected, others])
    assert scales["y"].tolist() == [[1000.0, 5.0]]
    compare(expected, got, scales=scales)
    with pytest.raises(VerificationError):
        compare(expected, _one(np.float32([[0.01, 5.001]])), scales=scales)


def test_places_along_a_dynamic_axis_share_their_scale() -> None:
    shapes = [(2, 32, 3), (1, 64, 3)]
    scales = column_scales([{"y": np.ones(shape, np.float32), "n": np.ones(2, int)} for shape in shapes])
    assert {name: scale.shape for name, scale in scales.items()} == {"y": (1, 1, 3)}


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


def test_a_file_that_unpacks_to_too_much_is_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample({"x": np.zeros(1 << 20, np.uint8)}, {})
    save_golden(tmp_path / "g.npz", [sample])
    assert (tmp_path / "g.npz").stat().st_size < 1 << 12
    monkeypatch.setattr(golden, "MAX_BYTES", 1 << 20)  # the array alone has as many, and its header comes on top
    with pytest.raises(VerificationError, match="unpacks to 1 MiB"):
        load_golden(tmp_path / "g.npz")
    with pytest.raises(InvalidInputError, match="sample_inputs"):
        save_golden(tmp_path / "more.npz", [sample, sample])
    assert not (tmp_path / "more.npz").exists()


def test_other_damage(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(VerificationError, match="damaged"):
        load_golden(path)
    path.unlink()
    save_golden(path, [Sample({"x": np.random.default_rng(0).standard_normal(1000)}, {})])
    data = bytearray(path.read_bytes())
    data[100:600] = b"\xff" * 500  # the deflate stream
    path.write_bytes(data)
    with pytest.raises(VerificationError, match="damaged"):
        load_golden(path)


def test_a_header_that_states_more_than_any_memory(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}\n"
    with zipfile.ZipFile(tmp_path / "g.npz", "w") as archive:
        archive.writestr("0/inputs/x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(VerificationError, match="damaged"):
        load_golden(tmp_path / "g.npz")


def test_a_manifest_holds_no_tolerance_that_json_has_not() -> None:
    """An infinite one would be written as null, which means that none was asked for."""
    for value in (math.inf, math.nan, -1.0):
        with pytest.raises(ValidationError, match="rtol"):
            VerificationRecord(reference="torch", samples=1, rtol=value)
        with pytest.raises(ValidationError, match="max_abs"):
            OutputError(max_abs=value, max_rel=0.0)


def test_differences_beyond_the_largest_number_are_that_number() -> None:
    """Of the smallest float64 numbers, any difference is infinitely many times the value."""
    (error,) = compare({"y": np.array([5e-324])}, {"y": np.array([1e-9])}).values()
    assert error.max_rel == sys.float_info.max


def test_a_large_output_is_compared_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is in each of the pieces counts; the comparison takes a part of what the output does."""
    monkeypatch.setattr(golden, "_PIECE", 1 << 14)
    rows = 1 << 18
    expected = np.tile(np.float32([1.0, -2.0, np.nan]), (rows, 1))
    got = expected.copy()
    got[0, 0] += 0.5
    got[-1, 1] -= 0.25
    tracemalloc.start()
    try:
        with pytest.raises(VerificationError, match=rf"2 of {2 * rows} values differ, by up to 0\.5 \(0\.5 relative"):
            compare(_one(expected), _one(got))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * expected.nbytes
    got = expected.copy()
    got[-1, 2] = 0.0
    with pytest.raises(VerificationError, match="NaN"):
        compare(_one(expected), _one(got))
    assert compare(_one(expected[::-1, ::-1]), _one(expected[::-1, ::-1]))["y"].max_abs == 0.0
