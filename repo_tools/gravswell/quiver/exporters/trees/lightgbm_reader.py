"""LightGBM's boosters and estimators, read from the text that they save: the JSON dump nests as deep as the trees."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gravswell.errors import ExportError
from gravswell.quiver.exporters.trees.boosted import Boosted, Link, Tree, booster_and_labels, runs

CLASSES = frozenset({"lightgbm.basic.Booster", "lightgbm.sklearn.LGBMModel"})
"""Bases of all models."""

_ZERO = float(np.float32(1e-35))
"""LightGBM takes what is no further from 0 for 0."""

_CATEGORICAL, _DEFAULT_LEFT, _MISSING = 1, 2, ("none", "zero", "nan")
"""Bits of a node's ``decision_type``, and what the two above them say is missing."""

_LINKS: Mapping[str, Link] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "softplus",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    **dict.fromkeys(
        ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg"), "identity"
    ),
}
"""By objective, what the sums become."""


def read(model: Any) -> Boosted:
    """Read a booster or a fitted estimator.

    Raises InvalidInputError for one that is not fitted, ExportError for one that is not to be had in ONNX.
    """
    booster, classes = booster_and_labels(model, lambda estimator: estimator.booster_)
    header, *rest = booster.model_to_string(num_iteration=None).split("\n\n")
    of_model = _fields(header)
    targets = int(of_model["num_tree_per_iteration"])
    sections = [_fields(section) for section in rest if section.lstrip("\n").startswith("Tree=")]
    objective, *options = of_model.get("objective", "regression").split()
    if objective not in _LINKS:
        raise ExportError(
            f"what LightGBM makes of the sums under the objective {objective!r} is not known here; known: "
            f"{', '.join(_LINKS)}"
        )
    link = "square" if "sqrt" in options else _LINKS[objective]
    if classes is not None and ("objective" not in of_model or link not in ("sigmoid", "softmax")):
        raise ExportError(
            f"a classifier with {repr(objective) if 'objective' in of_model else 'a custom objective'} has no "
            f"probabilities of its own: export its booster, model.booster_"
        )
    slope = next((float(o.removeprefix("sigmoid:")) for o in options if o.startswith("sigmoid:")), 1.0)
    rounds = len(sections) // targets if "average_output" in of_model else 1
    return Boosted(
        features=int(of_model["max_feature_idx"]) + 1,
        base=np.zeros(targets),
        link=link,
        slope=slope,
        trees=tuple(_tree(section, k % targets, 1 / rounds) for k, section in enumerate(sections)),
        less="BRANCH_LEQ",
        double=True,
        classes=classes,
        names=tuple(booster.feature_name()),
    )


def _fields(section: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in section.strip("\n").split("\n"))}


def _tree(fields: Mapping[str, str], target: int, scale: float) -> Tree:
    if fields.get("is_linear") == "1":
        raise ExportError("trees with linear models in their leaves are not exported: train with linear_tree=false")
    split, feature = _numbers(fields, "decision_type", int), _numbers(fields, "split_feature", int)
    thresholds, values = _numbers(fields, "threshold", float), _numbers(fields, "leaf_value", float)
    inner, leaves = len(split), len(values)
    # LightGBM numbers the leaves from -1 downwards; here they follow the inner nodes
    yes, no = (
        [child if child >= 0 else inner - 1 - child for child in _numbers(fields, side, int)]
        for side in ("left_child", "right_child")
    )
    tree = Tree(
        target,
        feature=feature + [0] * leaves,
        threshold=thresholds + [0.0] * leaves,
        yes=yes + [-1] * leaves,
        no=no + [-1] * leaves,
        missing_yes=[False] * (inner + leaves),
        value=[0.0] * inner + [value * scale for value in values],
    )
    bounds, words = _numbers(fields, "cat_boundaries", int), _numbers(fields, "cat_threshold", int)
    for node, decision in enumerate(split):
        if decision & _CATEGORICAL:
            k = int(thresholds[node])
            _split_categories(tree, node, words[bounds[k] : bounds[k + 1]])
        else:
            _split_numbers(tree, node, _MISSING[decision >> 2 & 3], left=bool(decision & _DEFAULT_LEFT))
    return tree


def _numbers(fields: Mapping[str, str], name: str, kind: type[Any]) -> list[Any]:
    return [kind(text) for text in fields.get(name, "").split()]


def _split_numbers(tree: Tree, node: int, missing: str, *, left: bool) -> None:
    """Where NaN goes, and 0 where that is missing too. What is no further from 0 than LightGBM tells is 0."""
    threshold, yes, no = tree.threshold[node], tree.yes[node], tree.no[node]
    if -_ZERO <= threshold < _ZERO:
        threshold = tree.threshold[node] = _ZERO if threshold >= 0 else _below(-_ZERO)
    natural = threshold >= 0
    tree.missing_yes[node] = left if missing == "nan" else natural
    if missing == "zero" and left != natural:
        if natural:
            ends, children = [_below(-_ZERO), _ZERO, threshold], [yes, no, yes, no]
        else:
            ends, children = [threshold, _below(-_ZERO), _ZERO], [yes, no, yes, no]
        tree.split_ranges(node, tree.feature[node], ends, children, yes if left else no)


def _split_categories(tree: Tree, node: int, words: list[int]) -> None:
    """Those whose bits are set go left, all else right: LightGBM cuts off what follows the point."""
    yes, no = tree.yes[node], tree.no[node]
    ends, children = [], []
    for first, beyond in runs([32 * k + bit for k, word in enumerate(words) for bit in range(32) if word >> bit & 1]):
        ends += [_below(first) if first else -1.0, _below(beyond)]
        children += [no, yes]
    tree.split_ranges(node, tree.feature[node], ends, [*children, no], no)


def _below(value: float) -> float:
    """The next number below, so that ``<=`` it is ``<`` the value. Rounding down keeps that for float32."""
    return float(np.nextafter(value, -np.inf))
