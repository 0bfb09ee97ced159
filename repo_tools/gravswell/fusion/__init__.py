"""Fusions at work: which models the variants of a command line are, who asks which of them, and what they answer.

What a fusion is, :func:`qv.fuse <gravswell.quiver.fuse>` says, and it is exported like any model.
"""

from gravswell.fusion.plan import Plan, check_ids, planned
from gravswell.fusion.predictions import Predictions, check_outputs, predict
from gravswell.fusion.variants import Variant, lies_here, parse_variant, read_params, variant_models
from gravswell.fusion.workers import Worker, assigned

__all__ = [
    "Plan",
    "Predictions",
    "Variant",
    "Worker",
    "assigned",
    "check_ids",
    "check_outputs",
    "lies_here",
    "parse_variant",
    "planned",
    "predict",
    "read_params",
    "variant_models",
]
