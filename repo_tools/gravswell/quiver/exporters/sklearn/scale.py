"""Inputs on an estimator's own scale: around its means, between its thresholds, out of its categories.

At random numbers around zero a forest that was fitted on thousands answers from one corner, and any graph looks right.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gravswell.quiver.exporters.base import Inputs, InputSpec, class_names
from gravswell.quiver.exporters.drawing import Kind, Known, drawn_batches
from gravswell.quiver.exporters.sklearn import boosting
from gravswell.quiver.golden import Array

_COARSE = 1e-5
"""Of a range's width: where numbers are further apart than this, scaling alone brings errors near the tolerance."""


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
    """Batches for an estimator; see :func:`drawn_batches`."""
    return drawn_batches(known_values(model), specs, settled, columns, exact=_splits(first_step(model)))


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


def last_step(model: Any) -> Any:
    """What gives the answer, through pipelines."""
    while hasattr(model, "steps") and model.steps[-1][1] not in (None, "passthrough"):
        model = model.steps[-1][1]
    return model


def works(step: Any) -> bool:
    """Whether a step is an estimator: not dropped, not passed through."""
    return step is not None and not isinstance(step, str)


def _splits(model: Any) -> bool:
    """Whether it only compares its inputs with thresholds, so that points between those are answered exactly."""
    boosted = bool(class_names(model) & boosting.CLASSES)
    return boosted or hasattr(model, "tree_") or any(map(_splits, members(model)))


def parts(model: Any) -> Iterator[Any]:
    """The estimator, and every one that it is made of, at any depth."""
    yield model
    inner = [step for _, step in getattr(model, "steps", ())]
    inner += [step for _, step, *_ in getattr(model, "transformers_", ())]
    inner += [step for _, step in getattr(model, "transformer_list", ())]
    inner += [getattr(model, name, None) for name in ("best_estimator_", "final_estimator_", "estimator_")]
    for part in (*inner, *members(model)):
        if works(part):
            yield from parts(part)


def members(model: Any) -> Iterator[Any]:
    """The fitted estimators that an ensemble asks."""
    fitted = getattr(model, "estimators_", None)
    if isinstance(fitted, list | np.ndarray):
        yield from np.asarray(fitted, dtype=object).ravel()
    yield from (calibrated.estimator for calibrated in getattr(model, "calibrated_classifiers_", ()))


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
    yield from _thresholds(model, columns)
    # bagging gives each member some of the columns; what one takes for missing, another refuses
    chosen = getattr(model, "estimators_features_", None)
    for k, member in enumerate(members(model)):
        if hasattr(member, "fit"):
            for column, values, kind in _known(member, columns if chosen is None else columns[chosen[k]]):
                yield column, values[~np.isnan(values)] if kind in ("thresholds", "edges") else values, kind
    kinds: tuple[tuple[str, Kind], ...] = (("categories_", "members"), ("bin_edges_", "thresholds"))
    for name, kind in kinds:
        for column, values in zip(columns, getattr(model, name, None) or (), strict=False):
            yield int(column), values, kind
    for column, ends in zip(columns, _ranges(model), strict=False):
        yield int(column), ends, "range"


def _thresholds(model: Any, columns: Array) -> Iterator[tuple[int, Any, Kind]]:
    """Of an estimator that is a tree, or boosted trees, which have NaN among those."""
    boosted = boosting.read(model)
    if boosted is not None:
        yield from ((int(columns[feature]), edges, "edges") for feature, edges in boosted.edges().items())
        return
    if not hasattr(model, "tree_"):
        return
    features, thresholds = model.tree_.feature, model.tree_.threshold
    for feature in np.unique(features[features >= 0]):
        yield int(columns[feature]), thresholds[features == feature], "thresholds"


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
