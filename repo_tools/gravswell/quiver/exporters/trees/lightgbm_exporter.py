"""LightGBM's boosters and estimators."""

from pathlib import Path
from typing import Any

import numpy as np

from gravswell.quiver.exporters.trees import lightgbm_reader
from gravswell.quiver.exporters.trees.boosted import Boosted
from gravswell.quiver.exporters.trees.exporter import TreesExporter
from gravswell.quiver.golden import Array


class LightGBMExporter(TreesExporter):
    """A ``Booster`` answers ``variable``, what its ``predict`` says, of the best iteration where it knows one.
    Estimators answer as scikit-learn's: ``label`` and ``probabilities``, or ``variable``.

    Its thresholds are float64. Inputs in float32 are compared with the next float32 below, which tells them apart just
    so; inputs in float64 with the thresholds themselves; integers become float32, as LightGBM makes them.
    """

    name = "LightGBM model"
    classes = lightgbm_reader.CLASSES
    module = "lightgbm"
    suffixes = (".txt",)
    hint = "; categories are given as their codes"

    def read(self, model: Any) -> Boosted:
        """See :meth:`TreesExporter.read`."""
        return lightgbm_reader.read(model)

    def load(self, path: Path) -> Any:
        """See :meth:`TreesExporter.load`."""
        import lightgbm  # noqa: PLC0415 - a framework is imported only when it is used

        return lightgbm.Booster(model_file=path)

    def answers(self, model: Any, x: Array) -> Array:
        """See :meth:`TreesExporter.answers`."""
        return np.asarray(model.predict(x))
