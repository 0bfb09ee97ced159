"""From a framework's model to a proved ``model.onnx``. Its law: a framework is imported only inside its own exporter.

Everything here imports ONNX and ONNX Runtime, so the rest of the library imports this package only to export or verify.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gravswell.errors import ExportError, GravswellError, InvalidInputError
from gravswell.quiver.exporters import files, graph
from gravswell.quiver.exporters.base import (
    Exported,
    Exporter,
    ExportRequest,
    Inputs,
    InputSpec,
    accepted,
    answered,
    as_arrays,
    described,
)
from gravswell.quiver.exporters.fused.exporter import FusedExporter
from gravswell.quiver.exporters.fused.metadata import fused_models
from gravswell.quiver.exporters.keras.exporter import KerasExporter
from gravswell.quiver.exporters.keras.saved_model import SavedModelExporter
from gravswell.quiver.exporters.onnx_model import OnnxExporter
from gravswell.quiver.exporters.proof import Proof, Runner, open_session, prove, run, session_inputs
from gravswell.quiver.exporters.sampling import (
    PLANS,
    far_shapes,
    given_batches,
    is_batched,
    random_batches,
    resized,
)
from gravswell.quiver.exporters.sklearn.exporter import SklearnExporter
from gravswell.quiver.exporters.torch.exporter import TorchExporter
from gravswell.quiver.exporters.trees.lightgbm_exporter import LightGBMExporter
from gravswell.quiver.exporters.trees.xgboost_exporter import XGBoostExporter
from gravswell.quiver.golden import save_golden, tolerance
from gravswell.quiver.manifest import GOLDEN, FusedModel, MemberRecord, Signature
from gravswell.targets import Target

__all__ = ["Built", "ExportRequest", "InputSpec", "Runner", "build", "open_session", "run"]

EXPORTERS: tuple[Exporter, ...] = (
    FusedExporter(),
    SavedModelExporter(),  # before ONNX, which takes every other path
    KerasExporter(),  # whose models are torch modules too where Keras runs on torch
    TorchExporter(),
    XGBoostExporter(),  # whose estimators are scikit-learn's too, as LightGBM's are
    LightGBMExporter(),
    SklearnExporter(),
    OnnxExporter(),
)

_WAYS_OUT = {
    r"scalar type|dtype|must be (an )?integer|(?-i:\bLong(Tensor)?\b)|tensors used as indices": (
        'declare the types of its inputs, such as input_types={"ids": "int64"} (--input-type ids=int64)'
    ),
    r"unknown categor|\bNaN\b|infinity|out of (range|bounds)|could not convert": (
        "where only some values are taken, give batches as sample_inputs (--sample-inputs FILE.npz)"
    ),
    r"shape|size|dimension|features|not enough values|too many values": (
        "declare the shapes that it takes, a fixed batch as a number"
    ),
}
"""What helps, by the words of the model's own error: the first that matches."""

Stage = Callable[[str], None]
"""Called with what is being done now, in words for a progress display."""


@dataclass(frozen=True, slots=True)
class Built:
    """A version's files in a folder, proved, not yet published."""

    proof: Proof
    opset: int
    ir_version: int
    exporter: str
    framework: str
    target: str | None = None
    """Tag of the Triton whose limits the graph keeps."""
    members: tuple[MemberRecord, ...] = ()
    """Of a pipeline: the versions that it calls."""
    parts: Any = None
    """Of a pipeline: a ``ModelConfig`` with what its version decides of the configuration."""
    fusion: tuple[FusedModel, ...] | None = None
    """Of several models in one graph: the table of their ids."""
    computes_in: np.dtype[Any] | None = None
    """The floating type inside, where that is coarser than the outputs'."""
    batching: int = 0
    """Rows that a server is to put together, in the entry's first version, where nobody says otherwise; 0: none."""

    @property
    def signature(self) -> Signature:
        """What the graph takes and gives."""
        return self.proof.signature


def build(
    request: ExportRequest,
    folder: Path,
    *,
    input_types: Mapping[str, str] | None = None,
    rows_apart: bool = False,
    rtol: float | None = None,
    atol: float | None = None,
    stage: Stage = lambda _: None,
) -> Built:
    """Export into ``folder`` (``model.onnx``, ``.golden.npz``) and prove it against the framework.

    ``input_types``: Triton types by input, also of those whose shapes the model is to know itself. ``rows_apart``: the
    server may put rows of several requests into one batch, so prove that this changes nothing.
    Raises ExportError or VerificationError when the model cannot be exported or answers differently, InvalidInputError
    for a tolerance that is none.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not 0 <= value < math.inf:
            raise InvalidInputError(f"{name}={value} is no tolerance: give a finite number, 0 or more")
    exporter = _exporter(request.model)
    if request.opset is not None and not 1 <= request.opset <= request.target.opset:
        raise InvalidInputError(
            f"opset {request.opset} is not served: {request.target} takes up to {request.target.opset}; leave it out, "
            f"or name a newer target"
        )
    request = exporter.opened(replace(request, folder=folder, stage=stage))
    try:
        return _built(
            exporter, request, folder, input_types or {}, rows_apart=rows_apart, rtol=rtol, atol=atol, stage=stage
        )
    finally:
        exporter.closed(request)


def _built(
    exporter: Exporter,
    request: ExportRequest,
    folder: Path,
    input_types: Mapping[str, str],
    *,
    rows_apart: bool,
    rtol: float | None,
    atol: float | None,
    stage: Stage,
) -> Built:
    request = replace(request, inputs=_typed(exporter, request, input_types))
    specs = request.inputs or ()
    stage("finding inputs")
    batches = _batches(exporter, request)
    stage(f"exporting the {exporter.name}")
    with exporter.exporting(request, batches) as exported:
        proto, path = _write(exported, request.target, folder)
        session = open_session(path, mapped=True)
        _check_inputs(session, specs)
        if exported.computes_in is not None:
            coarse = tolerance(exported.computes_in)
            rtol, atol = coarse[0] if rtol is None else rtol, coarse[1] if atol is None else atol
        stage("verifying in ONNX Runtime")
        proof = prove(
            Runner.of(session, {spec.name for spec in specs if spec.optional}),
            batches,
            exported.reference,
            framework=exported.framework,
            inputs="given" if request.samples else "random",
            batched=is_batched(specs),
            rows_apart=rows_apart or exported.batching > 0,
            rtol=rtol,
            atol=atol,
            ailing=exported.ailing,
            beyond=exported.assumptions,
        )
    save_golden(folder / GOLDEN, proof.samples)
    opset = graph.default_opset(proto)
    return Built(
        proof,
        opset,
        proto.ir_version,
        exported.exporter,
        exported.framework,
        request.target.tag,
        fusion=fused_models(proto),
        computes_in=exported.computes_in,
        batching=exported.batching,
    )


def _typed(exporter: Exporter, request: ExportRequest, types: Mapping[str, str]) -> tuple[InputSpec, ...]:
    """The inputs, completed by the exporter, of the ``types`` that were asked for."""
    specs = exporter.inputs(request)
    unknown = sorted(set(types) - {spec.name for spec in specs})
    if unknown:
        raise InvalidInputError(
            f"input_types names {', '.join(unknown)}, which is no input; the model takes "
            f"{', '.join(spec.name for spec in specs)}"
        )
    if all(types.get(spec.name, spec.data_type) == spec.data_type for spec in specs):
        return specs
    asked = tuple(replace(spec, data_type=types.get(spec.name, spec.data_type)) for spec in specs)
    return exporter.inputs(replace(request, inputs=asked))


def _exporter(model: Any) -> Exporter:
    for exporter in EXPORTERS:
        if exporter.claims(model):
            return exporter
    known = ", ".join(exporter.name for exporter in EXPORTERS)
    raise InvalidInputError(f"a {type(model).__module__}.{type(model).__qualname__} cannot be exported; known: {known}")


def _batches(exporter: Exporter, request: ExportRequest) -> list[Inputs]:
    """Batches that the model accepts: the user's, or random ones of the first plan that it takes."""
    specs = request.inputs or ()
    if request.samples:
        batches = given_batches(specs, [as_arrays(sample) for sample in request.samples])
        if not exporter.traces:
            return batches
        with exporter.answering(request) as answer:
            return [*batches, *_far(answer, specs, batches, given=True)]
    with exporter.answering(request) as answer:
        own = _own_batches(exporter, request)
        found = accepted(answer, chain([own] if own else [], (random_batches(specs, plan) for plan in PLANS)))
        if not isinstance(found, Exception):
            return [*found, *_far(answer, specs, found, given=False)] if exporter.traces else found
    shapes = ", ".join(f"{s.name} {s.data_type} {s.dims}" for s in specs)
    failure = f"the model itself fails on random inputs of {shapes} ({described(found)})"
    if request.inferred:
        raise InvalidInputError(
            f"{failure}, which are the inputs of the entry's earlier versions: a model that takes others needs an "
            f"entry of its own; where only some values are taken, give batches as sample_inputs (--sample-inputs "
            f"FILE.npz)"
        ) from found
    raise ExportError(f"{failure}: {_way_out(str(found))}{exporter.hint}") from found


def _own_batches(exporter: Exporter, request: ExportRequest) -> list[Inputs] | None:
    try:
        return exporter.own_batches(request)
    except GravswellError:
        raise
    except Exception:  # noqa: BLE001 - a model that does not answer is told of when the random ones are tried
        return None


def _way_out(said: str) -> str:
    """What to do about a model that fails so: the one thing that its words are about, or else all of them."""
    likely = next((way for words, way in _WAYS_OUT.items() if re.search(words, said, re.IGNORECASE)), None)
    return likely or "; or ".join(_WAYS_OUT.values())


def _far(
    answer: Callable[[Inputs], Any], specs: tuple[InputSpec, ...], batches: list[Inputs], *, given: bool
) -> Iterator[Inputs]:
    """Batches much larger than those that it is traced with, as far as the model takes such.

    ``answer``: of an exporter that traces, which gives named arrays.
    """
    answered_with = sum(array.size for _, array in answered(answer, batches[0]))
    for alternatives in far_shapes(specs, batches[0], answered_with):
        for shapes in alternatives:
            batch = resized(batches, shapes, given=given)
            try:
                answer(batch)
            except Exception:  # noqa: BLE001, S112 - a limit of the user's model, which may raise whatever it likes
                continue
            yield batch
            break


def _write(exported: Exported, target: Target, folder: Path) -> tuple[Any, Path]:
    proto, changed = graph.fit_for_serving(exported.proto, target)
    if exported.converted:
        graph.strip_sources(proto)
    return proto, files.write(proto, folder, exported.source, changed=changed or exported.converted)


def _check_inputs(session: Any, specs: tuple[InputSpec, ...]) -> None:
    """The graph has the inputs that were asked for, as dynamic as they were asked for. Unused ones may be gone."""
    wanted = {spec.name: spec for spec in specs}
    for record in session_inputs(session):
        spec = wanted.get(record.name)
        if spec is None:
            raise ExportError(f"the exported graph has an input {record.name!r} that was not declared")
        if record.data_type != spec.data_type:
            raise ExportError(f"input {record.name!r} became {record.data_type} in the graph, not {spec.data_type}")
        for axis, (dim, size) in enumerate(zip(spec.shape, record.dims, strict=True)):
            if dim is None and size != -1:
                what = "the batch" if axis == 0 else f"dimension {axis}"
                raise ExportError(
                    f"input {record.name!r} came out with {what} fixed at {size}: a size is hard-coded in the model; "
                    f"use the sizes of the tensors it is given, or declare a number there"
                )
