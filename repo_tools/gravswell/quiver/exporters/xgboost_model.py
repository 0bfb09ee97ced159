"""XGBoost's boosters and estimators."""

from typing import Any

import numpy as np

from gravswell.quiver.exporters import trees_xgboost
from gravswell.quiver.exporters.trees import Boosted
from gravswell.quiver.exporters.trees_exporter import TreesExporter
from gravswell.quiver.golden import Array


class XGBoostExporter(TreesExporter):
    """A ``Booster`` answers ``variable``, what its ``predict`` says; of one that was stopped early the best iterations
    do, as in XGBoost's estimators. Those answer as scikit-learn's: ``label`` and ``probabilities``, or ``variable``.
    """

    name = "XGBoost model"
    classes = trees_xgboost.CLASSES
    module = "xgboost"
    hint = "; categories are given as their codes"

    def read(self, model: Any) -> Boosted:
        """See :meth:`TreesExporter.read`."""
        return trees_xgboost.read(model)

    def answers(self, model: Any, x: Array) -> Array:
        """See :meth:`TreesExporter.answers`."""
        import xgboost  # noqa: PLC0415 - a framework is imported only when it is used

        data = xgboost.DMatrix(
            x, feature_names=model.feature_names, feature_types=model.feature_types, enable_categorical=True
        )
        return np.asarray(model.predict(data, iteration_range=(0, trees_xgboost.rounds(model) or 0)))
