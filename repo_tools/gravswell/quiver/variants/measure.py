"""How far a variant is from the framework's answers, and whether that is near enough. Pure, but for the stopwatch."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np

from gravswell.errors import InvalidInputError, VerificationError
from gravswell.quiver.exporters.base import Outputs
from gravswell.quiver.golden import Array, scale_of
from gravswell.quiver.manifest import VariantError

SPEED_RUNS = 30
SPEED_SECONDS = 1.0
"""At most so long, and so often, a graph is run for its speed."""


def measure(expected: Sequence[Outputs], got: Sequence[Outputs]) -> dict[str, VariantError]:
    """The largest differences of each output over all batches, and how many of its rows say the same.

    VerificationError where an output has other shapes, or NaN or infinities in other places: float16 ends at 65504.
    """
    return {name: _measured(name, [e[name] for e in expected], [g[name] for g in got]) for name in expected[0]}


def _measured(name: str, expected: Sequence[Array], got: Sequence[Array]) -> VariantError:
    for e, g in zip(expected, got, strict=True):
        if e.shape != g.shape:
            raise VerificationError(f"output {name} has shape {list(g.shape)}, expected {list(e.shape)}")
    if expected[0].dtype.kind != "f":
        equal = [np.asarray(e == g).ravel() for e, g in zip(expected, got, strict=True)]
        return VariantError(max_abs=0.0, max_rel=0.0, of_scale=0.0, agreement=_share(equal))
    differences, relative = [0.0], [0.0]
    for e, g in zip(expected, got, strict=True):
        finite = np.isfinite(e)
        if not np.array_equal(np.where(finite, 0, e), np.where(np.isfinite(g), 0, g), equal_nan=True):
            raise VerificationError(
                f"output {name} is NaN or infinite where it was a number, or another of these, or the other way round: "
                f"its values do not fit the narrower type; serve the model as it is"
            )
        wanted = e[finite].astype(np.float64)
        apart, size = np.abs(g[finite].astype(np.float64) - wanted), np.abs(wanted)
        differences.append(float(apart.max(initial=0.0)))
        relative.append(float(np.divide(apart, size, out=np.zeros_like(apart), where=size > 0).max(initial=0.0)))
    scale = scale_of(expected)
    return VariantError(
        max_abs=max(differences),
        max_rel=max(relative),
        of_scale=max(differences) / scale if scale else float(max(differences) > 0),
        agreement=_agreement(expected, got),
    )


def _agreement(expected: Sequence[Array], got: Sequence[Array]) -> float | None:
    """Of scores, a row for each sample and a column for each class; None for any other output."""
    if any(e.ndim != 2 or e.shape[1] < 2 for e in expected):
        return None
    return _share([np.argmax(e, axis=1) == np.argmax(g, axis=1) for e, g in zip(expected, got, strict=True)])


def _share(equal: Sequence[Array]) -> float:
    return float(np.concatenate(equal).mean())


def judge(errors: Mapping[str, VariantError], *, max_error: float, min_agreement: float | None, rows: int) -> None:
    """VerificationError, with the figures, for a variant that is too far away.

    InvalidInputError where an agreement is wanted and no output has one.
    """
    if min_agreement is not None and all(error.agreement is None for error in errors.values()):
        raise InvalidInputError(
            f"min_agreement={min_agreement:g} is of scores, a column for each class, or of labels, and the model has "
            f"neither: leave it out (--min-agreement); max_error bounds {', '.join(errors)}"
        )
    facts = []
    for name, error in errors.items():
        too_far = error.of_scale > max_error
        too_few = min_agreement is not None and error.agreement is not None and error.agreement < min_agreement
        if too_far or too_few:
            facts.append(f"output {name} {error.told()}")
    if facts:
        agreed = "" if min_agreement is None else f" and agreement on {min_agreement:.2%} at least"
        raise VerificationError(
            f"{'; '.join(facts)}, over {rows} rows; wanted: at most {max_error:.2%}{agreed}. Nothing was published. "
            f"Calibrate int8 with rows like the real ones (--calibration FILE.npz), or allow more (--max-error)"
        )
    unsaid = [name for name, error in errors.items() if error.agreement is not None and error.agreement < 1]
    if unsaid and not any(error.max_abs for error in errors.values()):  # nothing but integers or text
        raise VerificationError(
            f"output {unsaid[0]} {errors[unsaid[0]].told()} over {rows} rows, and the model says nothing else that "
            f"could be held to a tolerance. Nothing was published: serve it as it is, or export it with its scores"
        )


def seconds_of(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """The median time of each, run in turns so that what else the machine does is shared by both."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + 2 * SPEED_SECONDS
    for _ in range(SPEED_RUNS):
        for work, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return median(times[0]), median(times[1])
