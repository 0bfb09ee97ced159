"""What an ``.npz`` that needs no pickle can hold."""

from pathlib import Path

import numpy as np
import pytest

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.quiver.arrays import write_arrays


def test_texts_are_kept_as_such_and_bytes_that_are_none_are_refused(tmp_path: Path) -> None:
    mixed = np.array([["ü", b"two"]], object)
    kept = write_arrays(tmp_path / "y.npz", {"allow_pickle": mixed, "file": np.arange(2)})
    assert kept["allow_pickle"].dtype.kind == "U"
    with np.load(tmp_path / "y.npz", allow_pickle=False) as stored:
        assert {name: stored[name].tolist() for name in stored.files} == {
            "allow_pickle": [["ü", "two"]],
            "file": [0, 1],
        }
    before = (tmp_path / "y.npz").read_bytes()
    for value, told in ((b"\xff", "output 'y' holds bytes that are not UTF-8"), ("a\0", "ends in NUL")):
        with pytest.raises(InvalidInputError, match=told):
            write_arrays(tmp_path / "y.npz", {"y": np.array([value], object)})
    with pytest.raises(UnavailableError, match=r"nowhere/y\.npz cannot be written: "):
        write_arrays(tmp_path / "nowhere" / "y.npz", {"y": np.zeros(1)})
    assert (tmp_path / "y.npz").read_bytes() == before
