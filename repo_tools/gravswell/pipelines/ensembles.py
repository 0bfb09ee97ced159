"""An ensemble's part of a configuration, from what a pipeline's function was seen to do."""

from typing import Any

from gravswell.errors import InvalidInputError
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


def check_batches(trace: Trace, max_batch_size: int) -> None:
    """InvalidInputError for a member that takes fewer rows at once than the ensemble lets a request have."""
    for step in trace.steps:
        limit = step.member.max_batch_size
        if 0 < limit < max_batch_size:
            raise InvalidInputError(
                f"the pipeline is to take batches of {max_batch_size} rows, and its member {step.member.told} takes up "
                f"to {limit}: export the member with --max-batch-size {max_batch_size}, or the pipeline with {limit}"
            )
