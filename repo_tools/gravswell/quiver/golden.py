"""``.golden.npz``: inputs and the framework's own outputs, and the one comparison that is made with them everywhere.

Keys are ``<k>/inputs/<tensor>`` and ``<k>/outputs/<tensor>`` for sample batch k = 0, 1, …. Nothing in the file needs
pickle. Strings are kept as fixed-width unicode; BF16, which numpy does not have, as float32.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravswell.errors import InvalidInputError, VerificationError
from gravswell.quiver.manifest import OutputError

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One batch: what goes in, and what the framework itself answers."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]


def save_golden(path: Path, samples: Sequence[Sample]) -> None:
    """Write ``samples``. The same samples give the same bytes."""
    arrays: dict[str, Any] = {}
    for k, sample in enumerate(samples):
        for side, tensors in (("inputs", sample.inputs), ("outputs", sample.outputs)):
            for name, array in tensors.items():
                arrays[f"{k}/{side}/{name}"] = _storable(name, array)
    with path.open("xb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def load_golden(path: Path) -> list[Sample]:
    """Read the samples back; VerificationError when the file is no such thing."""
    samples: dict[int, Sample] = {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            for key in stored.files:
                k, side, name = key.split("/", 2)
                sample = samples.setdefault(int(k), Sample({}, {}))
                {"inputs": sample.inputs, "outputs": sample.outputs}[side][name] = stored[key]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise VerificationError(f"{path} holds no golden tensors ({error}): the version is damaged") from None
    return [samples[k] for k in sorted(samples)]


def tolerance(dtype: np.dtype[Any]) -> tuple[float, float]:
    """``(rtol, atol)`` within which two correct runtimes may differ in that type; exact for all but floats."""
    if dtype.kind != "f":
        return 0.0, 0.0
    return {2: (1e-2, 1e-3), 4: (1e-4, 1e-5)}.get(dtype.itemsize, (1e-6, 1e-8))


def compare(
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    rtol: float | None = None,
    atol: float | None = None,
) -> dict[str, OutputError]:
    """Compare outputs by name and return the largest differences; VerificationError names what differs and by how much.

    Elements agree when ``|got - expected| <= atol * max(1, s) + rtol * |expected|`` with s the largest finite magnitude
    of the expected tensor: rounding follows the scale of the sums, also where their result is near zero. NaN must
    stand where NaN is expected, and infinities too. ``rtol`` and ``atol`` apply to floats and default to the type's
    :func:`tolerance`; integers, booleans and strings must be equal.
    """
    missing = sorted(set(expected) - set(got))
    if missing:
        raise VerificationError(f"no output {', '.join(missing)}; there are: {', '.join(sorted(got)) or 'none'}")
    return {name: _compare(name, np.asarray(e), np.asarray(got[name]), rtol, atol) for name, e in expected.items()}


def _compare(name: str, expected: Array, got: Array, rtol: float | None, atol: float | None) -> OutputError:
    if expected.shape != got.shape:
        raise VerificationError(f"output {name} has shape {list(got.shape)}, expected {list(expected.shape)}")
    if expected.dtype.kind in "SUO" or got.dtype.kind in "SUO":
        wrong = sum(e != g for e, g in zip(_as_bytes(expected), _as_bytes(got), strict=True))
        if wrong:
            raise VerificationError(f"output {name}: {wrong} of {expected.size} strings differ")
        return OutputError(max_abs=0.0, max_rel=0.0)
    if expected.dtype.kind != got.dtype.kind:
        raise VerificationError(f"output {name} has type {got.dtype}, expected {expected.dtype}")
    if expected.dtype.kind != "f":
        wrong = int((expected != got).sum())
        if wrong:
            raise VerificationError(f"output {name}: {wrong} of {expected.size} values differ")
        return OutputError(max_abs=0.0, max_rel=0.0)
    default = tolerance(expected.dtype)
    return _compare_floats(
        name, expected, got, default[0] if rtol is None else rtol, default[1] if atol is None else atol
    )


def _compare_floats(name: str, expected: Array, got: Array, rtol: float, atol: float) -> OutputError:
    e, g = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(e)
    if not np.array_equal(np.where(finite, 0.0, e), np.where(np.isfinite(g), 0.0, g), equal_nan=True):
        raise VerificationError(f"output {name}: NaN or infinite values stand in other places than expected")
    e, g = e[finite], g[finite]
    if not e.size:
        return OutputError(max_abs=0.0, max_rel=0.0)
    difference, magnitude = np.abs(g - e), np.abs(e)
    relative = np.divide(difference, magnitude, out=np.zeros_like(difference), where=magnitude > 0)
    error = OutputError(max_abs=float(difference.max()), max_rel=float(relative.max()))
    wrong = int((difference > atol * max(1.0, float(magnitude.max())) + rtol * magnitude).sum())
    if wrong:
        raise VerificationError(
            f"output {name}: {wrong} of {expected.size} values differ, by up to {error.max_abs:.3g} "
            f"({error.max_rel:.3g} relative; rtol={rtol:g}, atol={atol:g})"
        )
    return error


def _as_bytes(array: Array) -> list[bytes]:
    return [x.encode() if isinstance(x, str) else bytes(x) for x in array.ravel().tolist()]


def _storable(name: str, array: Array) -> Array:
    array = np.asarray(array)
    if array.dtype.kind != "O":
        return array
    try:
        text = [x.decode() if isinstance(x, bytes) else str(x) for x in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise InvalidInputError(
            f"tensor {name} holds bytes that are not UTF-8: golden tensors keep text only"
        ) from None
    if any(x.endswith("\0") for x in text):
        raise InvalidInputError(f"tensor {name} holds text that ends in NUL, which .npz cannot keep")
    return np.array(text, dtype=np.str_).reshape(array.shape)
