"""Batches that are drawn from what a model knows of its columns: on and between thresholds, inside ranges, members."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from gravswell.quiver.datatypes import numpy_type
from gravswell.quiver.exporters.base import Inputs, InputSpec
from gravswell.quiver.exporters.sampling import BATCH_SIZES
from gravswell.quiver.golden import Array

_EXACT_ROWS, _ROWS = 256, 24
"""Rows of the largest batch: many where none can lie on a threshold by rounding, few behind a step that computes."""

_VALUES = 1 << 16
"""Most values of the largest batch, which is kept with the version."""

_MAGNITUDES = (1.0, 10.0, 100.0)
"""Of columns that the estimator says nothing of."""


_POINTS = 17
"""Of a range."""

_GAPS = 16
"""Among so many values is one that is missing, where the model takes such."""

Kind = Literal["members", "thresholds", "edges", "range"]


class Known(NamedTuple):
    """Values that an estimator knows of one column."""

    values: Array
    kind: Kind
    """``members``: it takes these alone, as an encoder does. ``thresholds``: what lies between them tells most.
    ``edges``: thresholds again, at which the graph has to be exact, so that the values on them and next to them tell
    most. With a NaN among thresholds of either kind it takes missing values. ``range``: these are the ends of what it
    was fitted on.
    """


def drawn_batches(
    known: Mapping[int, list[Known]],
    specs: Sequence[InputSpec],
    settled: Callable[[Inputs], Array],
    columns: Sequence[int] | None = None,
    *,
    exact: bool,
) -> list[Inputs] | None:
    """Batches, always the same ones; None where nothing is ``known`` by column of what the model takes.

    ``settled`` says which rows of a batch have an answer that rounding does not decide. ``columns``: which column of
    the model's each input is; None for inputs that follow one another, such as one table of all columns. ``exact``:
    the model only compares, so that no rounding brings a value to the other side of a threshold.
    """
    if any(len(spec.shape) != 2 or spec.shape[0] is not None or spec.shape[1] is None for spec in specs):
        return None
    widths = [int(spec.shape[1] or 0) for spec in specs]
    dtypes = [
        numpy_type(spec.data_type or "TYPE_FP32") for spec, n in zip(specs, widths, strict=True) for _ in range(n)
    ]
    places = range(len(dtypes)) if columns is None else columns
    of_columns = [known.get(place, []) for place in places]
    if columns is None and any(dtype.kind not in "fU" for dtype in dtypes) and not any(of_columns):
        return None  # small random integers do as well
    if not all(map(_fits, dtypes, of_columns)):
        return None
    exact = exact or all(dtype.kind == "U" for dtype in dtypes)
    rows = max(*BATCH_SIZES, min(_EXACT_ROWS if exact else _ROWS, _VALUES // max(len(dtypes), 1)))
    rng = np.random.default_rng(20151)
    drawn = [
        _column(values, 2 * rows, k, rng, dtype)
        for k, (dtype, values) in enumerate(zip(dtypes, of_columns, strict=True))
    ]
    ends = np.cumsum(widths)
    table = {
        spec.name: np.stack(drawn[end - width : end], axis=1)
        for spec, end, width in zip(specs, ends, widths, strict=True)
    }
    chosen = np.flatnonzero(settled(table))[:rows]
    if not len(chosen):
        return None
    starts = np.cumsum((0, *BATCH_SIZES))
    batches = [chosen[np.arange(at, at + n) % len(chosen)] for at, n in zip(starts, BATCH_SIZES, strict=False)]
    return [{name: array[rows_of] for name, array in table.items()} for rows_of in (*batches, chosen)]


def _fits(dtype: np.dtype[Any], known: list[Known]) -> bool:
    """Whether values of that type can be drawn: text only of what is known."""
    if dtype.kind == "U":
        return any(k.kind == "members" for k in known) and all(k.values.dtype.kind in "UO" for k in known)
    return all(k.values.dtype.kind in "fiub" for k in known)


def _column(known: list[Known], rows: int, k: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Values of one column: of the known ones at random, or at several magnitudes."""
    if not known:
        magnitudes = np.take(_MAGNITUDES, (np.arange(rows) + k) % len(_MAGNITUDES))
        return np.asarray(rng.standard_normal(rows) * magnitudes).astype(dtype)
    members = [values for values, kind in known if kind == "members"]
    if dtype.kind == "U":
        return rng.choice(np.array([str(v) for v in np.concatenate(members)]), rows).astype(dtype)
    if members:
        return rng.choice(np.concatenate(members), rows).astype(dtype)
    points = _points(known, dtype)
    return np.asarray(rng.permutation(np.resize(rng.permutation(points), rows))).astype(dtype)


def _points(known: list[Known], dtype: np.dtype[Any]) -> Array:
    """Values between all thresholds and inside all ranges, but none on a threshold, other than those that are edges."""
    thresholds, edges = (
        np.concatenate([np.zeros(0), *(values for values, own in known if own == kind)])
        for kind in ("thresholds", "edges")
    )
    within = [_within(values, dtype) for values, kind in known if kind == "range"]
    points = np.concatenate([np.zeros(0), _between(thresholds), *within])
    with np.errstate(over="ignore"):
        points = points[~np.isin(points.astype(np.float32), thresholds.astype(np.float32))]
    points = _representable(np.concatenate([points, *_around(edges, dtype)]), dtype)
    if dtype.kind == "f" and (np.isnan(thresholds).any() or np.isnan(edges).any()):
        points = np.append(points, np.full(-(-len(points) // _GAPS), np.nan))
    return points if points.size else np.zeros(1)


def _representable(points: Array, dtype: np.dtype[Any]) -> Array:
    """Those that the type holds: a threshold may lie beyond its ends, where infinity is no value that models take."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.asarray(points[(points >= limits.min) & (points < limits.max + 1)])
    with np.errstate(over="ignore"):
        return np.asarray(points[np.isfinite(points.astype(dtype))])


def _around(edges: Array, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Points on each edge, beside it as near as the type goes, and half way to the next."""
    yield _between(edges)
    with np.errstate(over="ignore", invalid="ignore"):
        typed = edges[np.isfinite(edges)].astype(dtype if dtype.kind == "f" else np.float64)
        for points in (typed, np.nextafter(typed, -np.inf), np.nextafter(typed, np.inf)):
            yield points[np.isfinite(points)].astype(np.float64)


def _within(ends: Array, dtype: np.dtype[Any]) -> Array:
    """Points from one end to the other, at least two that the type tells apart: float32 has few around a timestamp."""
    with np.errstate(over="ignore", invalid="ignore"):
        points = np.unique(np.linspace(ends[0], ends[-1], _POINTS).astype(dtype))
    points = points[np.isfinite(points)].astype(np.float64)
    if points.size == 1:
        step = max(1.0, float(np.spacing(np.abs(points.astype(dtype)))[0])) if dtype.kind == "f" else 1.0
        points = points[0] + step * np.arange(-1, 2)
    return np.asarray(points)


def _between(values: Array) -> Array:
    """Points on both sides of each value, half way to the next, so that no rounding decides on which side they are."""
    with np.errstate(over="ignore"):  # LightGBM splits between all numbers and none at the end of float64
        edges = np.unique(values.astype(np.float32)).astype(np.float64)
    edges = edges[np.isfinite(edges)]
    if not edges.size:
        return edges
    step = max(1.0, float(np.abs(edges).max()) / 8)
    points = np.concatenate([[edges[0] - step], (edges[1:] + edges[:-1]) / 2, [edges[-1] + step]])
    return _representable(points, np.dtype(np.float32)).astype(np.float32)
