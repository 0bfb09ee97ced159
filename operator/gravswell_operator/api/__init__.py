"""The custom resources of ``gravswell.dev/v1alpha1`` as pydantic models: the one source of the CRDs in ``crds/``.

Its law: no I/O, no clock, nothing but pydantic; ``generate`` alone writes files, and is run by developers. Field
docstrings are what ``kubectl explain`` shows; what a schema cannot say is a rule (``rules``).
"""

from gravswell_operator.api.common import GROUP, VERSION, Condition, ConditionStatus
from gravswell_operator.api.gpunodepool import GPUNodePool
from gravswell_operator.api.inferenceserver import InferenceServer
from gravswell_operator.api.model import Model
from gravswell_operator.api.modelrepository import ModelRepository

KINDS = (GPUNodePool, ModelRepository, InferenceServer, Model)

__all__ = [
    "GROUP",
    "KINDS",
    "VERSION",
    "Condition",
    "ConditionStatus",
    "GPUNodePool",
    "InferenceServer",
    "Model",
    "ModelRepository",
]
