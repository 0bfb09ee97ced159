"""Inputs on an estimator's own scale: around its means, between its thresholds, out of its categories.

At random numbers around zero a forest that was fitted on thousands answers from one corner, and any graph looks right.
"""

from collections.abc import Callable, Iterator, Sequence
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

_COARSE = 1e-5
"""Of a range's width: where numbers are further apart than this, scaling alone brings errors near the tolerance."""

Kind = Literal["members", "thresholds", "range"]


class Known(NamedTuple):
    """Values that an estimator knows of one column."""

    values: Array
    kind: Kind
    """``members``: it takes these alone, as an encoder does. ``thresholds``: what lies between them tells most.
    ``range``: these are the ends of what it was fitted on.
    """


def known_values(model: Any) -> dict[int, list[Known]]:
    """By column of the model's input, what its steps know of it."""
    found: dict[int, list[Known]] = {}
    width = getattr(first_step(model), "n_features_in_", None) or getattr(model, "n_features_in_", None) or 0
    for column, values, kind in _known(model, np.arange(int(width))):
        if 0 <= column < width:
            found.setdefault(int(column), []).append(Known(np.asarray(values).ravel(), kind))
    return found


def coarse_range(model: Any, columns: Sequence[int]) -> tuple[int, float, float, float] | None:
    """Which of ``columns`` float32 tells least apart: column, both ends of its range, how far numbers are apart there.

    None where it tells enough apart in each of them.
    """
    known = known_values(model)
    ranges = [(column, values) for column in columns for values, kind in known.get(column, []) if kind == "range"]
    found = []
    for column, ends in ranges:
        if ends.size and ends.dtype.kind == "f" and np.isfinite(ends).all():
            apart = float(np.spacing(np.abs(ends).max().astype(np.float32)))
            width = float(ends[-1] - ends[0])
            if apart > _COARSE * width > 0:
                found.append((apart / width, (column, float(ends[0]), float(ends[-1]), apart)))
    return max(found)[1] if found else None


def own_batches(
    model: Any, specs: Sequence[InputSpec], settled: Callable[[Inputs], Array], columns: Sequence[int] | None = None
) -> list[Inputs] | None:
    """Batches, always the same ones; None where the estimator says nothing of what it takes.

    ``settled`` says which rows of a batch have an answer that rounding does not decide. ``columns``: which column of
    the estimator's each input is; None for inputs that follow one another, such as one table of all columns.
    """
    if any(len(spec.shape) != 2 or spec.shape[0] is not None or spec.shape[1] is None for spec in specs):
        return None
    widths = [int(spec.shape[1] or 0) for spec in specs]
    dtypes = [
        numpy_type(spec.data_type or "TYPE_FP32") for spec, n in zip(specs, widths, strict=True) for _ in range(n)
    ]
    known = known_values(model)
    places = range(len(dtypes)) if columns is None else columns
    of_columns = [known.get(place, []) for place in places]
    if columns is None and any(dtype.kind not in "fU" for dtype in dtypes) and not any(of_columns):
        return None  # small random integers do as well
    if not all(map(_fits, dtypes, of_columns)):
        return None
    exact = all(dtype.kind == "U" for dtype in dtypes) or _splits(first_step(model))
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
    """Values between all thresholds and inside all ranges, but none on a threshold."""
    thresholds = np.concatenate([np.zeros(0), *(values for values, kind in known if kind == "thresholds")])
    within = [_within(values, dtype) for values, kind in known if kind == "range"]
    points = np.concatenate([_between(thresholds)] * bool(thresholds.size) + within)
    points = points[~np.isin(points.astype(np.float32), thresholds.astype(np.float32))]
    return points if points.size else np.zeros(1)


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
    edges = np.unique(values.astype(np.float32)).astype(np.float64)
    edges = edges[np.isfinite(edges)]
    if not edges.size:
        return edges
    step = max(1.0, float(np.abs(edges).max()) / 8)
    return np.concatenate([[edges[0] - step], (edges[1:] + edges[:-1]) / 2, [edges[-1] + step]]).astype(np.float32)


def first_step(model: Any) -> Any:
    """What the inputs meet first, through searches and pipelines, and behind what only fills gaps."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
            continue
        steps = [step for _, step in getattr(model, "steps", ()) if works(step)]
        if not steps:
            return model
        model = next((step for step in steps if not hasattr(step, "statistics_")), steps[0])


def works(step: Any) -> bool:
    """Whether a step is an estimator: not dropped, not passed through."""
    return step is not None and not isinstance(step, str)


def _splits(model: Any) -> bool:
    """Whether it only compares its inputs with thresholds, so that points between those are answered exactly."""
    return hasattr(model, "tree_") or any(map(_splits, _members(model)))


def _members(model: Any) -> Iterator[Any]:
    members = getattr(model, "estimators_", None)
    if isinstance(members, list | np.ndarray):
        yield from np.asarray(members, dtype=object).ravel()


def _known(model: Any, columns: Array) -> Iterator[tuple[int, Any, Kind]]:
    """A column of the input, values that the estimator knows of it, and what these are.

    ``columns``: its own, by position.
    """
    model = first_step(model)
    if hasattr(model, "transformers_"):
        for _, step, chosen in model.transformers_:
            own = positions(chosen, columns, getattr(model, "feature_names_in_", None))
            if works(step) and own is not None:
                yield from _known(step, own)
        return
    if hasattr(model, "vocabulary_"):  # texts, and nobody knows which
        yield from ((int(column), np.zeros(0, np.str_), "range") for column in columns)
        return
    if hasattr(model, "tree_"):
        inner = model.tree_.feature >= 0
        for feature in np.unique(model.tree_.feature[inner]):
            yield int(columns[feature]), model.tree_.threshold[inner & (model.tree_.feature == feature)], "thresholds"
        return
    chosen = getattr(model, "estimators_features_", None)  # bagging gives each member some of the columns
    for k, member in enumerate(_members(model)):
        if hasattr(member, "fit"):
            yield from _known(member, columns if chosen is None else columns[chosen[k]])
    kinds: tuple[tuple[str, Kind], ...] = (("categories_", "members"), ("bin_edges_", "thresholds"))
    for name, kind in kinds:
        for column, values in zip(columns, getattr(model, name, None) or (), strict=False):
            yield int(column), values, kind
    for column, ends in zip(columns, _ranges(model), strict=False):
        yield int(column), ends, "range"


def _ranges(model: Any) -> Array:
    """From below to above what scalers, clusters and classes were fitted on: two ends for each column."""
    low, high = getattr(model, "data_min_", None), getattr(model, "data_max_", None)
    if low is not None and high is not None:
        return np.stack([low, high], axis=1)
    tables = (getattr(model, name, None) for name in ("cluster_centers_", "theta_"))
    centers = next((table for table in tables if table is not None), None)
    if centers is not None:
        low, high = np.min(centers, axis=0), np.max(centers, axis=0)
        return np.stack([low - (high - low) / 2, high + (high - low) / 2], axis=1)
    middle = next((m for m in (getattr(model, n, None) for n in ("mean_", "center_")) if m is not None), None)
    if middle is None or np.ndim(middle) != 1:
        return np.zeros((0, 2))
    scale = getattr(model, "scale_", None)
    scale = np.ones_like(middle) if scale is None or np.shape(scale) != np.shape(middle) else scale
    return np.stack([np.asarray(middle) - 2 * scale, np.asarray(middle) + 2 * scale], axis=1)


def positions(chosen: Any, columns: Array, names: Array | None) -> Array | None:
    """A column transformer's choice out of ``columns``, whose ``names`` are known where it was fitted on a DataFrame.

    None where that is not to be told.
    """
    try:
        if not isinstance(chosen, slice):
            chosen = np.atleast_1d(np.asarray(chosen))
            if chosen.dtype.kind in "UOT" and names is not None:
                place = {name: k for k, name in enumerate(names)}
                chosen = np.array([place[name] for name in chosen], dtype=int)
            elif not chosen.size:
                chosen = chosen.astype(int)
        return np.asarray(columns[chosen])
    except (IndexError, KeyError, TypeError):
        return None
