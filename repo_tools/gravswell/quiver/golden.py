"""``.golden.npz``: inputs and the framework's own outputs, and the one comparison that is made with them everywhere.

Keys are ``<k>/inputs/<tensor>`` and ``<k>/outputs/<tensor>`` for sample batch k = 0, 1, …. Nothing in the file needs
pickle. Strings are kept as fixed-width unicode.
"""

import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravswell.errors import InvalidInputError, VerificationError
from gravswell.quiver.arrays import storable
from gravswell.quiver.manifest import OutputError

Array = NDArray[Any]

Atol = float | Mapping[str, float] | None
"""An absolute tolerance: one for every output in its scale, or by output's name one that holds as it stands."""

MAX_BYTES = 256 << 20
"""Most that the golden tensors of one version take in memory: whoever serves it loads them, trusted or not."""

ROUNDINGS = 32
"""Steps of the type that a long computation may be off by: about what a thousand independent roundings add up to."""

_PIECE = 1 << 20
"""Values that are compared at a time: in double precision, an output has no room for all that is made of it."""

_UNSCALED: Array = np.ones(())

# what reading a damaged or crafted archive raises; a header may state a shape that no machine holds
_DAMAGE = (OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Sample:
    """One batch: what goes in, and what the framework itself answers."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]


def save_golden(path: Path, samples: Sequence[Sample]) -> None:
    """Write ``samples``. The same samples give the same bytes."""
    size = sum(_size(sample) for sample in samples)
    if size > MAX_BYTES:
        raise InvalidInputError(
            f"the golden tensors take {size >> 20} MiB, and may take {MAX_BYTES >> 20} MiB: "
            f"prove the model with smaller inputs, as sample_inputs"
        )
    arrays: dict[str, Any] = {}
    for k, sample in enumerate(samples):
        for side, tensors in (("inputs", sample.inputs), ("outputs", sample.outputs)):
            for name, array in tensors.items():
                arrays[f"{k}/{side}/{name}"] = storable(f"tensor {name}", array)
    with path.open("xb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def load_golden(path: Path) -> list[Sample]:
    """Read the samples back; VerificationError when the file is no such thing, or larger than :data:`MAX_BYTES`."""
    samples: dict[int, Sample] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > MAX_BYTES:  # before any of it is unpacked: few bytes can hold many
            raise VerificationError(f"{path} unpacks to {size >> 20} MiB, and may to {MAX_BYTES >> 20}: remove it")
        with np.load(path, allow_pickle=False) as stored:
            for key in stored.files:
                k, side, name = key.split("/", 2)
                sample = samples.setdefault(int(k), Sample({}, {}))
                {"inputs": sample.inputs, "outputs": sample.outputs}[side][name] = stored[key]
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        raise VerificationError(f"{path} holds no golden tensors ({error}): the version is damaged") from None
    return [samples[k] for k in sorted(samples)]


def tolerance(dtype: np.dtype[Any]) -> tuple[float, float]:
    """``(rtol, atol)`` within which two correct runtimes may differ in that type; exact for all but floats."""
    if dtype.kind != "f":
        return 0.0, 0.0
    return {2: (1e-2, 1e-3), 4: (1e-4, 1e-5)}.get(dtype.itemsize, (1e-6, 1e-8))


def column_scales(outputs: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The largest finite magnitude of each column of each floating output over all ``outputs``, one per batch.

    A column is what a model says in one place for every row: the first axis is the batch, and an axis whose size
    differs between the batches (a length, a width) has no places of its own. Shapes broadcast over the output's.
    """
    scales: dict[str, Array] = {}
    for name in outputs[0] if outputs else ():
        arrays = [np.asarray(output[name]) for output in outputs if name in output]
        if any(array.dtype.kind != "f" or array.ndim != arrays[0].ndim for array in arrays):
            continue
        sizes = zip(*(array.shape for array in arrays), strict=True)
        axes = tuple(axis for axis, size in enumerate(sizes) if axis == 0 or len(set(size)) > 1)
        columns = [  # one batch after the other: the logits of a language model are a large part of it
            np.abs(array).max(axis=axes, keepdims=True, initial=0.0, where=np.isfinite(array)) for array in arrays
        ]
        scales[name] = np.maximum.reduce(columns).astype(np.float64)
    return scales


def scale_of(arrays: Sequence[Array]) -> float:
    """The largest finite magnitude in any of ``arrays``."""
    return max((float(np.abs(a[np.isfinite(a)].astype(np.float64)).max(initial=0.0)) for a in arrays), default=0.0)


def bounds(expected: Sequence[Mapping[str, Array]], max_error: float) -> dict[str, float]:
    """The absolute tolerance of each floating output under ``max_error``; never below what rounding alone makes."""
    return {
        name: max(max_error * scale_of([e[name] for e in expected]), tolerance(array.dtype)[1])
        for name, array in expected[0].items()
        if array.dtype.kind == "f"
    }


def compare(
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    rtol: float | None = None,
    atol: Atol = None,
    scales: Mapping[str, Array] | None = None,
) -> dict[str, OutputError]:
    """Compare outputs by name and return the largest differences; VerificationError names what differs and by how much.

    Elements agree when ``|got - expected| <= rtol * |expected| + atol * max(1, s)`` with s their column's scale:
    rounding follows the size of the sums, also where their result is near zero. But a value that is not even half
    right is rounding only up to :data:`ROUNDINGS` of the type's steps at s, or up to ``atol`` itself. NaN must stand
    where NaN is expected, and infinities too. ``rtol`` and ``atol`` apply to floats and default to each type's
    :func:`tolerance`; integers, booleans and strings must be equal. An ``atol`` that an output has by its name was made
    for it, and no scale widens it.

    :param scales: the :func:`column_scales` of all batches; of ``expected`` alone by default, which says little of a
        column when that is a single row.
    """
    scales = column_scales([expected]) if scales is None else scales
    missing = sorted(set(expected) - set(got))
    if missing:
        raise VerificationError(f"no output {', '.join(missing)}; there are: {', '.join(sorted(got)) or 'none'}")
    own = atol if isinstance(atol, Mapping) else {}
    return {
        name: _compare(
            name,
            np.asarray(e),
            np.asarray(got[name]),
            rtol=rtol,
            atol=own.get(name) if isinstance(atol, Mapping) else atol,
            scale=_UNSCALED if name in own else scales.get(name, _UNSCALED),
        )
        for name, e in expected.items()
    }


def _compare(
    name: str, expected: Array, got: Array, *, rtol: float | None, atol: float | None, scale: Array
) -> OutputError:
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
        name,
        expected,
        got,
        rtol=default[0] if rtol is None else rtol,
        atol=default[1] if atol is None else atol,
        scale=scale,
    )


def _compare_floats(name: str, expected: Array, got: Array, *, rtol: float, atol: float, scale: Array) -> OutputError:
    steps = ROUNDINGS * float(np.finfo(expected.dtype).eps)
    max_abs, max_rel, wrong = 0.0, 0.0, 0
    pieces = np.nditer(
        [expected, got, np.broadcast_to(scale, expected.shape)],
        flags=["buffered", "external_loop", "zerosize_ok"],
        op_dtypes=[np.float64] * 3,
        buffersize=_PIECE,
    )
    for e, g, s in pieces:
        finite = np.isfinite(e)
        if not np.array_equal(np.where(finite, 0.0, e), np.where(np.isfinite(g), 0.0, g), equal_nan=True):
            raise VerificationError(f"output {name}: NaN or infinite values stand in other places than expected")
        magnitude, scales = np.abs(e[finite]), np.maximum(1.0, s[finite])
        with np.errstate(over="ignore"):  # of values near the ends of float64
            difference = np.abs(g[finite] - e[finite])
            relative = np.divide(difference, magnitude, out=np.zeros_like(difference), where=magnitude > 0)
        max_abs = max(max_abs, _finite(difference.max(initial=0.0)))
        max_rel = max(max_rel, _finite(relative.max(initial=0.0)))
        rounding = np.maximum(steps * scales, magnitude / 2)
        allowed = np.maximum(atol, np.minimum(atol * scales, rounding)) + rtol * magnitude
        wrong += int((difference > allowed).sum())
    if wrong:
        raise VerificationError(
            f"output {name}: {wrong} of {np.isfinite(expected).sum()} values differ, by up to {max_abs:.3g} "
            f"({max_rel:.3g} relative; rtol={rtol:g}, atol={atol:g})"
        )
    return OutputError(max_abs=max_abs, max_rel=max_rel)


def _finite(value: Any) -> float:
    return min(float(value), sys.float_info.max)


def _as_bytes(array: Array) -> list[bytes]:
    return [x.encode() if isinstance(x, str) else bytes(x) for x in array.ravel().tolist()]


def _size(sample: Sample) -> int:
    return sum(np.asarray(array).nbytes for array in (*sample.inputs.values(), *sample.outputs.values()))
