"""``VotingClassifier`` as its converter takes it, and its votes, of which scikit-learn has no method."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gravswell.quiver.exporters.base import class_names
from gravswell.quiver.exporters.sklearn.scale import parts, works
from gravswell.quiver.golden import Array


@contextmanager
def convertible(model: Any) -> Iterator[None]:
    """While the context is open skl2onnx converts every vote in the model; afterwards they are as they were.

    It knows no ``flatten_transform``, which is the default and says nothing of predictions, and takes weights as an
    array alone, one for each of the estimators that were not dropped.
    """
    before = [(vote, vote.flatten_transform, vote.weights) for vote in parts(model) if _is_vote(vote)]
    try:
        for vote, _, weights in before:
            vote.flatten_transform = False
            if weights is not None:
                vote.weights = _weights(vote)
        yield
    finally:
        for vote, flatten, weights in before:
            vote.flatten_transform, vote.weights = flatten, weights


def shares(model: Any, x: Any) -> Array | None:
    """Of a hard vote, behind whatever steps: the share of the votes that each class has, shape (rows, classes).

    None for all that votes otherwise, and has probabilities of its own.
    """
    if hasattr(model, "best_estimator_"):
        return shares(model.best_estimator_, x)
    if hasattr(model, "steps"):
        return shares(model.steps[-1][1], model[:-1].transform(x) if len(model.steps) > 1 else x)
    if not _is_vote(model) or model.voting != "hard":
        return None
    votes = model.transform(x)
    weights = np.ones(votes.shape[1]) if model.weights is None else _weights(model)
    chosen = votes[:, :, None] == np.arange(len(model.classes_))
    return np.asarray((chosen * weights[:, None]).sum(axis=1) / weights.sum())


def _is_vote(model: Any) -> bool:
    return "sklearn.ensemble._voting.VotingClassifier" in class_names(model)


def _weights(vote: Any) -> Array:
    return np.array([w for (_, step), w in zip(vote.estimators, vote.weights, strict=True) if works(step)], dtype=float)
