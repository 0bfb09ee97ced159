"""XGBoost's boosters and estimators, read from the JSON that they save, whose fields XGBoost documents."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.exporters.trees.boosted import Boosted, Link, Tree, booster_and_labels, runs
from gravswell.quiver.golden import Array

CLASSES = frozenset({"xgboost.core.Booster", "xgboost.sklearn.XGBModel"})
"""Bases of all models."""


def _logit(p: Array) -> Array:
    p = np.clip(p, 1e-6, 1 - 1e-6)  # as XGBoost does
    return np.asarray(np.log(p / (1 - p)))


def _same(p: Array) -> Array:
    return p


_LINKS: Mapping[str, tuple[Link, Callable[[Array], Array]]] = {
    "binary:logistic": ("sigmoid", _logit),
    "reg:logistic": ("sigmoid", _logit),
    "binary:logitraw": ("identity", _same),
    "binary:hinge": ("hinge", _same),
    "multi:softprob": ("softmax", _same),
    "multi:softmax": ("argmax", _same),
    "count:poisson": ("exp", np.log),
    "reg:gamma": ("exp", np.log),
    "reg:tweedie": ("exp", np.log),
    "survival:aft": ("exp", np.log),
    "survival:cox": ("exp", np.log),
    **dict.fromkeys(
        (
            "reg:squarederror",
            "reg:squaredlogerror",
            "reg:pseudohubererror",
            "reg:absoluteerror",
            "reg:quantileerror",
            "rank:ndcg",
            "rank:map",
            "rank:pairwise",
        ),
        ("identity", _same),
    ),
}
"""By objective, what the sums become, and how its ``base_score`` becomes the sum that everything begins with."""


def read(model: Any) -> Boosted:
    """Read a booster or a fitted estimator.

    Raises InvalidInputError for one that is not fitted, ExportError for one that is not to be had in ONNX.
    """
    booster, classes = booster_and_labels(model, lambda estimator: estimator.get_booster())
    saved = json.loads(booster.save_raw("json"))["learner"]
    objective = saved["objective"]["name"]
    if objective not in _LINKS:
        raise ExportError(
            f"what XGBoost makes of the sums under the objective {objective!r} is not known here; known: "
            f"{', '.join(_LINKS)}"
        )
    link, margin = _LINKS[objective]
    if classes is not None:
        link = _of_classifier(objective, link)
    parameters = saved["learner_model_param"]
    base = np.atleast_1d(json.loads(parameters["base_score"])).astype(np.float64)
    targets = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    common: dict[str, Any] = {
        "features": int(parameters["num_feature"]),
        "base": margin(np.broadcast_to(base, targets)),
        "link": link,
        "missing": float(getattr(model, "missing", np.nan)),
        "classes": classes,
        "names": tuple(booster.feature_names or ()),
    }
    booster_of = saved["gradient_booster"]
    if booster_of["name"] == "gblinear":
        table = np.asarray(booster_of["model"]["weights"]).reshape(-1, targets)
        return Boosted(**{**common, "base": common["base"][0] + table[-1], "weights": table[:-1]})  # the first for all
    return Boosted(**common, trees=_trees(booster_of, rounds(booster)))


def _of_classifier(objective: str, link: Link) -> Link:
    if objective == "multi:softmax":
        return "softmax"  # its estimator has probabilities, its booster has none
    if link not in ("sigmoid", "softmax", "hinge"):
        raise ExportError(
            f"a classifier with the objective {objective!r} has no probabilities of its own: train it with "
            f"binary:logistic or multi:softprob, or export its booster, model.get_booster()"
        )
    return link


def rounds(booster: Any) -> int | None:
    """How many iterations answer, where that is not all of them."""
    best = booster.attr("best_iteration")
    return None if best is None else min(int(best) + 1, booster.num_boosted_rounds())


def _trees(saved: Mapping[str, Any], rounds_of: int | None) -> tuple[Tree, ...]:
    forest = saved.get("gbtree", saved)["model"]
    drop = saved.get("weight_drop") or forest.get("weight_drop") or [1.0] * len(forest["trees"])
    count = len(forest["trees"]) if rounds_of is None else forest["iteration_indptr"][rounds_of]
    if not count:
        raise InvalidInputError("the model has no trees: train it first")
    parts = zip(forest["trees"][:count], forest["tree_info"], drop, strict=False)
    return tuple(_tree(tree, int(target), float(weight)) for tree, target, weight in parts)


def _tree(saved: Mapping[str, Any], target: int, weight: float) -> Tree:
    if int(saved["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise ExportError(
            "trees whose leaves hold a vector (multi_strategy='multi_output_tree') are not exported: train with "
            "multi_strategy='one_output_per_tree'"
        )
    left, right = np.asarray(saved["left_children"]), np.asarray(saved["right_children"])
    kept = _reached(left, right)
    place = np.full(len(left) + 1, -1)  # the last for the child of a leaf, which has number -1
    place[kept] = np.arange(len(kept))
    leaf = left[kept] < 0
    thresholds = np.asarray(saved["split_conditions"], dtype=np.float64)[kept]
    tree = Tree(
        target,
        feature=np.where(leaf, 0, np.asarray(saved["split_indices"])[kept]).tolist(),
        threshold=np.where(leaf, 0.0, thresholds).tolist(),
        yes=place[left[kept]].tolist(),
        no=place[right[kept]].tolist(),
        missing_yes=np.asarray(saved["default_left"])[kept].astype(bool).tolist(),
        value=np.where(leaf, thresholds * weight, 0.0).tolist(),
    )
    starts, sizes = saved.get("categories_segments", ()), saved.get("categories_sizes", ())
    for saved_node, start, size in zip(saved.get("categories_nodes", ()), starts, sizes, strict=True):
        node = int(place[saved_node])
        if node < 0 or leaf[node]:  # it was a split before it was pruned
            continue
        yes, no = tree.yes[node], tree.no[node]
        ends, children = [], []
        for first, beyond in runs(saved["categories"][start : start + size]):  # these go right, all others left
            ends += [float(first), float(beyond)]
            children += [yes, no]
        tree.split_ranges(node, tree.feature[node], ends, [*children, yes], yes if tree.missing_yes[node] else no)
    return tree


def _reached(left: Array, right: Array) -> Array:
    """The nodes that rows come to, ascending: what was pruned stays in the list, as leaves that no split leads to."""
    found, pending = [], [0]
    while pending:
        node = pending.pop()
        found.append(node)
        if left[node] >= 0:
            pending += [int(left[node]), int(right[node])]
    return np.sort(found)
