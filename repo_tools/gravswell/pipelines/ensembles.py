"""An ensemble's part of a configuration, from what a pipeline's function was seen to do."""

from typing import Any

from gravswell.pipelines.tracing import Trace
from gravswell.quiver.composition.config import Access, set_parameters
from gravswell.quiver.config import ModelConfig
from gravswell.quiver.manifest import Signature
from gravswell.quiver.platform import Platform


def ensemble_parts(trace: Trace, access: Access) -> Any:
    """The ``ModelConfig`` with the steps, each of its member's version."""
    parts = ModelConfig(platform=Platform.PIPELINE.value)
    for step in trace.steps:
        parts.ensemble_scheduling.step.add(
            model_name=step.member.model,
            model_version=step.member.record.version,
            input_map={name: facts.name for name, facts in step.inputs.items()},
            output_map={name: facts.name for name, facts in step.outputs.items() if facts.uses},
        )
    set_parameters(parts, access)
    return parts


def ensemble_signature(trace: Trace) -> Signature:
    """The inputs and outputs of the ensemble, the batch included."""
    return Signature(
        inputs=tuple(facts.record for facts in trace.inputs.values()),
        outputs=tuple(facts.record for facts in trace.outputs.values()),
    )
