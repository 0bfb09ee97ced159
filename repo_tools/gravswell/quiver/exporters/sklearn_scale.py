"""Inputs on an estimator's own scale: around its means, between its thresholds, out of its categories.

At random numbers around zero a forest that was fitted on thousands answers from one corner, and any graph looks right.
"""

from collections.abc import Callable, Iterator
from typing import Any

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


def own_batches(model: Any, spec: InputSpec, settled: Callable[[Array], Array]) -> list[Inputs] | None:
    """Batches for the one input, always the same ones; None where the estimator says nothing of what it takes.

    ``settled`` says which rows of a table have an answer that rounding does not decide.
    """
    width = spec.shape[1] if len(spec.shape) == 2 else None
    dtype = numpy_type(spec.data_type or "TYPE_FP32")
    if width is None or spec.shape[0] is not None or dtype.kind not in "fU":
        return None
    known: dict[int, list[Array]] = {}
    for column, values in _known(model, np.arange(width)):
        if 0 <= column < width:
            known.setdefault(column, []).append(np.asarray(values).ravel())
    text = dtype.kind == "U"
    if text and (set(known) != set(range(width)) or any(v.dtype.kind not in "UO" for vs in known.values() for v in vs)):
        return None
    if not text and any(v.dtype.kind not in "fiub" for vs in known.values() for v in vs):
        return None
    exact = text or _splits(first_step(model))
    rows = max(*BATCH_SIZES, min(_EXACT_ROWS if exact else _ROWS, _VALUES // max(width, 1)))
    rng = np.random.default_rng(20151)
    columns = [_column(known.get(k, []), 2 * rows, k, rng) for k in range(width)]
    table = np.stack(columns, axis=1).astype(dtype)
    table = table[settled(table)][:rows]
    rows = len(table)
    if not rows:
        return None
    starts = np.cumsum((0, *BATCH_SIZES))
    sizes = zip(starts, BATCH_SIZES, strict=False)
    return [*({spec.name: np.take(table, np.arange(at, at + n) % rows, axis=0)} for at, n in sizes), {spec.name: table}]


def _column(known: list[Array], rows: int, k: int, rng: np.random.Generator) -> Array:
    """Values of one column: of the known ones at random, or at several magnitudes."""
    if not known:
        magnitudes = np.take(_MAGNITUDES, (np.arange(rows) + k) % len(_MAGNITUDES))
        return np.asarray(rng.standard_normal(rows) * magnitudes)
    values = np.concatenate(known)
    if values.dtype.kind in "UO":
        return rng.choice(np.array([str(v) for v in values]), rows)
    between = _between(values)
    return rng.permutation(np.resize(rng.permutation(between), rows))


def _between(values: Array) -> Array:
    """Points on both sides of each value, half way to the next, so that no rounding decides on which side they are."""
    edges = np.unique(values.astype(np.float32)).astype(np.float64)
    edges = edges[np.isfinite(edges)]
    if not edges.size:
        return np.zeros(1)
    step = max(1.0, float(np.abs(edges).max()) / 8)
    points = np.concatenate([[edges[0] - step], (edges[1:] + edges[:-1]) / 2, [edges[-1] + step]]).astype(np.float32)
    return points[~np.isin(points, edges.astype(np.float32))]


def first_step(model: Any) -> Any:
    """What the inputs meet first, through searches and pipelines."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "steps") and any(_works(step) for _, step in model.steps):
            model = next(step for _, step in model.steps if _works(step))
        else:
            return model


def _works(step: Any) -> bool:
    return step is not None and not isinstance(step, str)


def _splits(model: Any) -> bool:
    """Whether it only compares its inputs with thresholds, so that points between those are answered exactly."""
    return hasattr(model, "tree_") or any(map(_splits, _members(model)))


def _members(model: Any) -> Iterator[Any]:
    members = getattr(model, "estimators_", None)
    if isinstance(members, list | np.ndarray):
        yield from np.asarray(members, dtype=object).ravel()


def _known(model: Any, columns: Array) -> Iterator[tuple[int, Any]]:
    """Pairs of a column of the input and values that the estimator knows of it. ``columns``: its own, by position."""
    model = first_step(model)
    if hasattr(model, "transformers_"):
        for _, step, chosen in model.transformers_:
            own = _positions(chosen, columns)
            if _works(step) and own is not None:
                yield from _known(step, own)
        return
    if hasattr(model, "tree_"):
        inner = model.tree_.feature >= 0
        for feature in np.unique(model.tree_.feature[inner]):
            yield int(columns[feature]), model.tree_.threshold[inner & (model.tree_.feature == feature)]
        return
    chosen = getattr(model, "estimators_features_", None)  # bagging gives each member some of the columns
    for k, member in enumerate(_members(model)):
        if hasattr(member, "fit"):
            yield from _known(member, columns if chosen is None else columns[chosen[k]])
    for name, width in (("categories_", None), ("bin_edges_", None), ("cluster_centers_", 1), ("theta_", 1)):
        table = getattr(model, name, None)
        if table is not None:
            rows = table if width is None else np.asarray(table).T
            yield from ((int(column), values) for column, values in zip(columns, rows, strict=False))
    yield from _scaled(model, columns)


def _scaled(model: Any, columns: Array) -> Iterator[tuple[int, Any]]:
    """Columns of the scalers: from below to above what they were fitted on."""
    low, high = getattr(model, "data_min_", None), getattr(model, "data_max_", None)
    if low is None or high is None:
        middle = next((m for m in (getattr(model, n, None) for n in ("mean_", "center_")) if m is not None), None)
        if middle is None or np.ndim(middle) != 1:
            return
        scale = getattr(model, "scale_", None)
        scale = np.ones_like(middle) if scale is None or np.shape(scale) != np.shape(middle) else scale
        low, high = np.asarray(middle) - 2 * scale, np.asarray(middle) + 2 * scale
    for column, least, most in zip(columns, low, high, strict=False):
        yield int(column), np.linspace(least, most, 17)


def _positions(chosen: Any, columns: Array) -> Array | None:
    """A column transformer's choice by position; None where it chooses by name, which a plain tensor does not have."""
    try:
        picked = columns[chosen if isinstance(chosen, slice) else np.atleast_1d(np.asarray(chosen))]
    except IndexError:
        return None
    return np.asarray(picked)
