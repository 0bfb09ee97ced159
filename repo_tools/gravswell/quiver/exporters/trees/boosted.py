"""Boosted trees as every framework has them: splits by a threshold, leaves that are summed, and what that sum becomes.

The readers of the frameworks make a :class:`Boosted` of a model; ``graph.py`` makes ONNX of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import numpy as np

from gravswell.errors import InvalidInputError
from gravswell.quiver.exporters.base import described
from gravswell.quiver.golden import Array

Less = Literal["BRANCH_LT", "BRANCH_LEQ"]
"""How a value is compared with a threshold: XGBoost goes left below it, LightGBM at it too."""

Link = Literal["identity", "sigmoid", "exp", "softmax", "argmax", "hinge", "softplus", "square"]
"""What sums become. ``argmax``: the place of the largest. ``hinge``: 1 above 0, else 0. ``square``: keeps the sign."""

_NO_CHILD = -1


@dataclass(slots=True)
class Tree:
    """One tree, node by node; node 0 is its root. Every node has an entry in each list."""

    target: int
    """Which sum its leaves add to."""
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    yes: list[int] = field(default_factory=list)
    """Child for values below the threshold; negative in a leaf."""
    no: list[int] = field(default_factory=list)
    missing_yes: list[bool] = field(default_factory=list)
    """Whether NaN goes to ``yes``."""
    value: list[float] = field(default_factory=list)
    """Of a leaf."""

    def split_ranges(self, node: int, feature: int, ends: Sequence[float], children: Sequence[int], gap: int) -> None:
        """Make ``node`` send each range of values to a child of its own: child k up to end k, the last one beyond all.

        ``gap``: the child, one of them, that NaN goes to. The ranges become a chain of splits whose ``no`` leads on: a
        child may be shared by several splits as their ``yes``, but ONNX Runtime 1.20 and later takes it as the ``no``
        of one alone.
        """
        passed = False
        for k, end in enumerate(ends):
            last = k == len(ends) - 1
            follower = children[-1] if last else self._add()
            passed = passed or children[k] == gap
            self.feature[node], self.threshold[node] = feature, end
            self.yes[node], self.no[node], self.missing_yes[node] = children[k], follower, passed
            node = follower

    def _add(self) -> int:
        self.feature.append(0)
        self.threshold.append(0.0)
        self.yes.append(_NO_CHILD)
        self.no.append(_NO_CHILD)
        self.missing_yes.append(False)
        self.value.append(0.0)
        return len(self.feature) - 1


def booster_and_labels(model: Any, fitted: Callable[[Any], Any]) -> tuple[Any, Array | None]:
    """The booster that a model is, or that an estimator has, as ``fitted`` says; and a classifier's labels.

    Raises InvalidInputError for an estimator that is not fitted.
    """
    if not hasattr(model, "fit"):
        return model, None
    try:
        booster = fitted(model)
    except Exception as error:  # noqa: BLE001 - the frameworks' and scikit-learn's errors for this share no base
        raise InvalidInputError(f"{type(model).__name__} cannot be read: {described(error)}") from None
    return booster, np.asarray(model.classes_) if hasattr(model, "predict_proba") else None


def runs(categories: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first of each run of neighbours, and the number that follows its last."""
    known = set(categories)
    for first in sorted(category for category in known if category - 1 not in known):
        yield first, next(beyond for beyond in count(first + 1) if beyond not in known)


@dataclass(frozen=True, slots=True)
class Boosted:
    """A boosted model: for each row, ``link(slope * (base + the leaves that it falls into))``, or ``+ x @ weights``."""

    features: int
    base: Array
    """Shape (targets,)."""
    link: Link
    slope: float = 1.0
    """What the sums are multiplied by before they become probabilities."""
    trees: tuple[Tree, ...] = ()
    less: Less = "BRANCH_LT"
    double: bool = False
    """Whether inputs that are given in float64 are compared so; all others are rounded to float32 first."""
    weights: Array | None = None
    """Shape (features, targets), of a linear model, for which a missing value is 0."""
    missing: float = float("nan")
    """The value that means a missing one, beside NaN."""
    classes: Array | None = None
    """Labels of a classifier, shape (classes,); None for a model that answers with numbers alone."""
    names: tuple[str, ...] = ()
    """Of the features, where it was fitted with names."""

    @property
    def targets(self) -> int:
        """How many sums there are."""
        return len(self.base)

    @property
    def width(self) -> int:
        """How many numbers there are in a row's answer."""
        if self.classes is not None:
            return max(self.targets, 2)
        return 1 if self.link == "argmax" else self.targets

    @property
    def several_labels(self) -> bool:
        """Whether every sum is a label of its own, yes or no, rather than a class that excludes the others."""
        return self.classes is not None and self.targets > 1 and len(self.classes) == 2 and self.link == "sigmoid"

    def edges(self) -> dict[int, Array]:
        """By feature, every threshold that is compared with it, and what means a missing value."""
        inner = [(tree, np.asarray(tree.yes, dtype=np.int64) >= 0) for tree in self.trees]
        features = [np.asarray(tree.feature, dtype=np.int64)[mask] for tree, mask in inner]
        thresholds = [np.asarray(tree.threshold)[mask] for tree, mask in inner]
        feature, threshold = (np.concatenate(parts) if parts else np.zeros(0) for parts in (features, thresholds))
        gaps = (np.nan, self.missing)
        return {int(k): np.append(np.unique(threshold[feature == k]), gaps) for k in np.unique(feature)}
