"""Tuning: how many instances of a model, and whether its server forms batches, measured under a latency limit.

The embedded Triton serves the entry under one setting after another, a load of many clients asks it, and the setting
with the most rows a second within the limit goes into the entry's ``config.pbtxt``. From there it reaches production
with the next version, as every change of a configuration does.

Its law: what decides (:mod:`.space`, :mod:`.search`, :mod:`.settings`) is pure; what measures (:mod:`.load`,
:mod:`.bench`) decides nothing.
"""

from gravswell.tuning.report import Measurement, TuneReport
from gravswell.tuning.run import Progress, tune
from gravswell.tuning.space import Point, Space

__all__ = ["Measurement", "Point", "Progress", "Space", "TuneReport", "tune"]
