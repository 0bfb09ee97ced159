"""scikit-learn's HistGradientBoosting, read into the form of all boosted trees; also with categorical features.

Nothing public tells of its trees. The names are those of scikit-learn 1.5 to 1.9; an export is proved in any case.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.exporters.trees.boosted import Boosted, Link, Tree
from gravswell.quiver.golden import Array

CLASSES = frozenset({"sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting"})
"""The base of them."""

_LINKS: Mapping[str, Link] = {
    "IdentityLink": "identity",
    "LogLink": "exp",
    "LogitLink": "sigmoid",
    "MultinomialLogit": "softmax",
}
"""By the loss's own link, what the sums become."""


def read(model: Any) -> Boosted:
    """Read a fitted estimator.

    Raises InvalidInputError for one that is not fitted, ExportError for one that is not to be had in ONNX.
    """
    if not hasattr(model, "_predictors"):
        raise InvalidInputError(f"{type(model).__name__} is not fitted: fit it first")
    link = type(model._loss.link).__name__
    if link not in _LINKS:
        raise ExportError(f"what {type(model).__name__} makes of its sums by {link} is not known here")
    columns, categories = _columns(model)
    return Boosted(
        features=int(model.n_features_in_),
        base=np.ravel(model._baseline_prediction).astype(np.float64),
        link=_LINKS[link],
        trees=tuple(
            _tree(predictor, target, columns, categories)
            for of_round in model._predictors
            for target, predictor in enumerate(of_round)
        ),
        less="BRANCH_LEQ",
        double=True,
        classes=np.asarray(model.classes_) if hasattr(model, "classes_") else None,
    )


def _columns(model: Any) -> tuple[Array, dict[int, Array]]:
    """The input's column of each feature of the trees, and by feature the categories that its codes stand for."""
    width = int(model.n_features_in_)
    preprocessor = getattr(model, "_preprocessor", None)
    if preprocessor is None:
        return np.arange(width), {}
    columns = np.zeros(width, dtype=np.int64)
    places = preprocessor.output_indices_
    columns[places["encoder"]] = np.flatnonzero(model.is_categorical_)
    columns[places["numerical"]] = np.flatnonzero(~model.is_categorical_)
    encoded = np.arange(width)[places["encoder"]].tolist()
    known = preprocessor.named_transformers_["encoder"].categories_
    texts = [int(columns[k]) for k, own in zip(encoded, known, strict=True) if np.asarray(own).dtype.kind not in "fiub"]
    if texts:
        raise ExportError(
            f"the categories of column {texts[0]} are texts, and {type(model).__name__} takes one table of numbers: "
            f"encode them in a step before it (ColumnTransformer with an OrdinalEncoder), and fit the pipeline on the "
            f"DataFrame"
        )
    return columns, {k: np.asarray(own, dtype=np.float64) for k, own in zip(encoded, known, strict=True)}


def _tree(predictor: Any, target: int, columns: Array, categories: Mapping[int, Array]) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    tree = Tree(
        target,
        feature=np.where(leaf, 0, columns[np.where(leaf, 0, nodes["feature_idx"])]).tolist(),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]).tolist(),
        yes=np.where(leaf, -1, nodes["left"].astype(np.int64)).tolist(),
        no=np.where(leaf, -1, nodes["right"].astype(np.int64)).tolist(),
        missing_yes=(nodes["missing_go_to_left"].astype(bool) & ~leaf).tolist(),
        value=np.where(leaf, nodes["value"], 0.0).tolist(),
    )
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf).tolist():
        words = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        _split_categories(tree, node, categories[int(nodes["feature_idx"][node])], words)
    return tree


def _split_categories(tree: Tree, node: int, known: Array, words: Array) -> None:
    """Those whose bits are set go left, the others that are known right, and all else where a missing value goes."""
    yes, no = tree.yes[node], tree.no[node]
    elsewhere = yes if tree.missing_yes[node] else no
    ends: list[float] = []
    children: list[int] = []
    for code in np.argsort(known).tolist():
        value = float(known[code])
        if not np.isnan(value):
            ends += [float(np.nextafter(value, -np.inf)), value]
            children += [elsewhere, yes if int(words[code // 32]) >> (code % 32) & 1 else no]
    tree.split_ranges(node, tree.feature[node], ends, [*children, elsewhere], elsewhere)
