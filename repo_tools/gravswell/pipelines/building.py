"""From a pipeline to a version's files, proved: what is published answers as the function does here.

The function is run here, its members in ONNX Runtime, for the reference. What is compared with it is what servers get:
an ensemble by its configuration's steps, Python from its shipped source in an interpreter of its own.
"""

import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from gravswell.errors import ExportError, InvalidInputError
from gravswell.pipelines.batches import batches_for
from gravswell.pipelines.calling import as_array
from gravswell.pipelines.declaring import check_outputs, declared_tensors
from gravswell.pipelines.ensembles import ensemble_parts, ensemble_signature
from gravswell.pipelines.packing import shipment_of, write_python
from gravswell.pipelines.running import Running
from gravswell.pipelines.shipping import Shipment
from gravswell.pipelines.tracing import Trace, named_results
from gravswell.quiver.composition.base import Wishes
from gravswell.quiver.composition.config import Pinned, set_parameters
from gravswell.quiver.composition.opening import MemberVersion, check_batches
from gravswell.quiver.composition.proving import proved
from gravswell.quiver.config import ModelConfig
from gravswell.quiver.datatypes import parse_data_type
from gravswell.quiver.exporters import Built
from gravswell.quiver.exporters.base import Inputs, Outputs
from gravswell.quiver.exporters.sampling import rows_of
from gravswell.quiver.manifest import Signature, TensorRecord
from gravswell.quiver.reader import RepositoryReader

if TYPE_CHECKING:
    from gravswell.pipelines.authoring import Pipeline


def build_pipeline(
    pipeline: "Pipeline",
    members: Mapping[str, MemberVersion],
    reader: RepositoryReader,
    folder: Path,
    wishes: Wishes,
) -> Built:
    """Compile, write and prove it. See ``Pipeline.build``."""
    wishes.stage("checking the pipeline")
    declared = _declared(pipeline, wishes)
    names = wishes.output_names or pipeline.output_names or _stated_names(wishes)
    check_outputs(pipeline.name, names or ())
    shipment, unshippable = _shipment(pipeline)
    traced = pipeline.traced(members, declared, names)
    if isinstance(traced, Trace):
        check_batches([step.member for step in traced.steps], wishes.max_batch_size)
        inputs = ensemble_signature(traced).inputs
    else:
        if shipment is None:
            raise InvalidInputError(unshippable)
        inputs = declared or _stated(pipeline, wishes) or _undeclared(pipeline, traced)
    in_rows = isinstance(traced, Trace) or wishes.max_batch_size > 0
    temporary = tempfile.TemporaryDirectory(prefix="gravswell-pipeline-")
    with temporary:
        here = Running(pipeline, members, reader, temporary)
        reference = _Reference(pipeline, here, names, traced if isinstance(traced, Trace) else None)
        wishes.stage("running it here")
        batches = batches_for(inputs, members.values(), reference, wishes, in_rows=in_rows)
        if isinstance(traced, Trace):
            parts, signature = ensemble_parts(traced, pipeline.access), ensemble_signature(traced)
        else:
            answers = [reference(batch) for batch in batches]
            check_outputs(pipeline.name, answers[0])
            signature = Signature(inputs=inputs, outputs=_outputs(pipeline, inputs, answers, batches))
            parts = _python_parts(pipeline, members)
            assert shipment is not None, "or it was refused above"
            wishes.stage("packing its source")
            write_python(pipeline, shipment, members, signature, folder, max_batch_size=wishes.max_batch_size)
        wishes.stage("verifying what is published")
        return proved(
            folder,
            parts,
            signature,
            list(members.values()),
            here.sessions,
            batches=batches,
            reference=reference,
            wishes=wishes,
            told="the published pipeline",
            against=f"Python {platform.python_version()} over onnxruntime {ort.__version__}",
            inputs="given" if wishes.samples else "random",
            exporter=f"gravswell pipeline {pipeline.name} ({'ensemble' if isinstance(traced, Trace) else 'python'})",
            framework=f"python {platform.python_version()}",
        )


class _Reference:
    """The function, run here: batches to outputs by name, of an ensemble in the shapes that servers have."""

    def __init__(self, pipeline: "Pipeline", here: Running, names: Sequence[str] | None, trace: Trace | None) -> None:
        self._pipeline = pipeline
        self._here = here
        self._names = names
        tensors = {**trace.inputs, **trace.outputs} if trace is not None else {}
        self._one_more = {name for name, facts in tensors.items() if facts.one_more}

    def __call__(self, batch: Inputs) -> Outputs:
        given = {name: batch[name] for name in self._pipeline.parameters.inputs}
        for name in self._one_more & given.keys():
            given[name] = given[name].reshape(given[name].shape[:-1])
        answers = named_results(self._here(**given), self._names, self._pipeline.name)
        arrays = {name: as_array(value) for name, value in answers.items()}
        return {n: a.reshape((*a.shape, 1)) if n in self._one_more else a for n, a in arrays.items()}

    def shaped(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """A user's batch in these shapes, where it is in the function's."""
        arrays = {name: np.asarray(value) for name, value in sample.items()}
        return {n: a.reshape((*a.shape, 1)) if n in self._one_more and a.ndim < 2 else a for n, a in arrays.items()}


def _shipment(pipeline: "Pipeline") -> tuple[Shipment | None, str]:
    """What would go along with Python, or why it cannot; an ensemble needs none of it."""
    try:
        return shipment_of(pipeline), ""
    except InvalidInputError as error:
        return None, str(error)


def _declared(pipeline: "Pipeline", wishes: Wishes) -> tuple[TensorRecord, ...] | None:
    """The inputs as this export or the pipeline states them; None where neither does."""
    wanted = pipeline.parameters.inputs
    known = {record.name: record for record in pipeline.inputs or ()}
    if wishes.input_shapes is None:
        return tuple(known[name] for name in wanted) if known else None
    if set(wishes.input_shapes) != set(wanted):
        raise InvalidInputError(
            f"input_shapes names {', '.join(wishes.input_shapes)}, and {pipeline.name} takes {', '.join(wanted)}"
        )
    types = {name: record.data_type for name, record in known.items()} | dict(wishes.input_types)
    return declared_tensors("input", {n: (types.get(n, "TYPE_FP32"), wishes.input_shapes[n]) for n in wanted})


def _stated(pipeline: "Pipeline", wishes: Wishes) -> tuple[TensorRecord, ...] | None:
    """The inputs of the entry's earlier versions, where they are this pipeline's."""
    known = {record.name: record for record in wishes.stated.inputs} if wishes.stated is not None else {}
    wanted = pipeline.parameters.inputs
    return tuple(known[name] for name in wanted) if known and set(known) == set(wanted) else None


def _stated_names(wishes: Wishes) -> tuple[str, ...] | None:
    return None if wishes.stated is None else tuple(record.name for record in wishes.stated.outputs)


def _undeclared(pipeline: "Pipeline", reason: str) -> tuple[TensorRecord, ...]:
    spelled = ", ".join(f'"{name}": ("FP32", (None, 64))' for name in pipeline.parameters.inputs)
    raise InvalidInputError(
        f"{pipeline.name} says nothing of its inputs, and members cannot tell, for it {reason}: declare them, "
        f"inputs={{{spelled}}}"
    )


def _outputs(
    pipeline: "Pipeline", inputs: Sequence[TensorRecord], answers: Sequence[Outputs], batches: Sequence[Inputs]
) -> tuple[TensorRecord, ...]:
    """The outputs as they were declared, or as they came out.

    A size that ever differs is any size, and so is one that is always that of an axis of an input whose size is free.
    """
    if pipeline.outputs is not None:
        return pipeline.outputs
    free = [
        {batch[record.name].shape[axis] for record in inputs for axis, dim in enumerate(record.dims) if dim < 0}
        for batch in batches
    ]
    records = []
    for name, first in answers[0].items():
        arrays = [answer[name] for answer in answers]
        ranks = {array.ndim for array in arrays}
        types = {array.dtype.name for array in arrays}
        if len(ranks) > 1 or len(types) > 1:
            pairs = zip(arrays, batches, strict=True)
            shown = ", ".join(f"{array.dtype}{list(array.shape)} of {rows_of(batch)} rows" for array, batch in pairs)
            raise ExportError(f"output {name} of {pipeline.name} changes its type or its rank with its input: {shown}")
        dims = []
        for sizes in zip(*(array.shape for array in arrays), strict=True):
            fixed = len(set(sizes)) == 1 and not all(size in given for size, given in zip(sizes, free, strict=True))
            dims.append(sizes[0] if fixed and sizes[0] else -1)
        records.append(TensorRecord(name=name, data_type=parse_data_type(first.dtype, tensor=name), dims=tuple(dims)))
    return tuple(records)


def _python_parts(pipeline: "Pipeline", members: Mapping[str, MemberVersion]) -> Any:
    parts = ModelConfig(backend="python")
    pinned = [Pinned(alias, member.model, member.record.version) for alias, member in members.items()]
    set_parameters(parts, pipeline.access, pinned)
    return parts
