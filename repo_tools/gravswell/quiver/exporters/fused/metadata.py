"""What a graph says of itself: that it is a fusion, and of which models."""

import json
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from gravswell.errors import ExportError
from gravswell.quiver.exporters.base import Inputs
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.manifest import FusedModel

METADATA = "gravswell.fusion"
"""Where a graph keeps its table of ids: a list as JSON has it, one map for each id."""


def fused_models(proto: ModelProto) -> tuple[FusedModel, ...] | None:
    """The table of ids that a graph keeps; None for one that is no fusion, or not one of ours."""
    said = next((entry.value for entry in proto.metadata_props if entry.key == METADATA), None)
    if said is None:
        return None
    try:
        return tuple(FusedModel.model_validate(row) for row in json.loads(said))
    except (ValueError, TypeError) as error:
        raise ExportError(f"the graph's metadata {METADATA!r} is no table of ids: {error}") from None


def optional_inputs(proto: ModelProto) -> set[str]:
    """The inputs of a fusion that requests may leave out; none of any other graph, whose defaults count as weights."""
    models = fused_models(proto) or ()
    own = {tensor.name for tensor in proto.graph.initializer}
    return own & {name for model in models for name in model.inputs}


def with_known_ids(proto: ModelProto, batches: Sequence[Inputs]) -> list[Inputs]:
    """The ``batches`` for the graph of a fusion: its models in turn."""
    count = len(fused_models(proto) or ())
    return [{**batch, MODEL_ID: np.arange(len(batch[MODEL_ID]), dtype=np.int64) % count + 1} for batch in batches]
