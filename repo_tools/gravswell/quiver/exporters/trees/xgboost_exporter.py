"""XGBoost's boosters and estimators."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from gravswell.errors import UnsupportedError
from gravswell.extras import install
from gravswell.quiver.exporters.trees import xgboost_reader
from gravswell.quiver.exporters.trees.boosted import Boosted
from gravswell.quiver.exporters.trees.exporter import TreesExporter
from gravswell.quiver.golden import Array


class XGBoostExporter(TreesExporter):
    """A ``Booster`` answers ``variable``, what its ``predict`` says; of one that was stopped early the best iterations
    do, as in XGBoost's estimators. Those answer as scikit-learn's: ``label`` and ``probabilities``, or ``variable``.
    """

    name = "XGBoost model"
    classes = xgboost_reader.CLASSES
    module = "xgboost"
    suffixes = (".ubj", ".json")
    hint = "; categories are given as their codes"

    def read(self, model: Any) -> Boosted:
        """See :meth:`TreesExporter.read`."""
        return xgboost_reader.read(model)

    def load(self, path: Path) -> Any:
        """See :meth:`TreesExporter.load`. A classifier is one again: its file says so."""
        import xgboost  # noqa: PLC0415 - a framework is imported only when it is used

        booster = xgboost.Booster(model_file=path)
        noted = booster.attr("scikit_learn")
        if noted is None or json.loads(noted).get("_estimator_type") != "classifier":
            return booster
        try:
            estimator = xgboost.XGBClassifier()
        except ImportError:
            raise UnsupportedError(
                f"{path} is an XGBClassifier, which needs scikit-learn: {install('sklearn')}"
            ) from None
        estimator.load_model(path)
        return estimator

    def answers(self, model: Any, x: Array) -> Array:
        """See :meth:`TreesExporter.answers`."""
        import xgboost  # noqa: PLC0415 - a framework is imported only when it is used

        data = xgboost.DMatrix(
            x, feature_names=model.feature_names, feature_types=model.feature_types, enable_categorical=True
        )
        return np.asarray(model.predict(data, iteration_range=(0, xgboost_reader.rounds(model) or 0)))
