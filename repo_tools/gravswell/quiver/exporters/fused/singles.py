"""The models of a fusion one by one: each exported and proved by its own framework's exporter, into its own folder.

What is left of a model then is an ONNX file and batches with the framework's own answers: the model itself may go.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, inliner

from gravswell.errors import ExportError, GravswellError, InvalidInputError, VerificationError
from gravswell.quiver.datatypes import parse_data_type
from gravswell.quiver.exporters import files, graph
from gravswell.quiver.exporters.base import ExportRequest, InputSpec, class_names, described
from gravswell.quiver.exporters.proof import check_rows_apart, cpu_session, run, session_inputs, session_outputs
from gravswell.quiver.exporters.sampling import rows_of
from gravswell.quiver.fusion import FEW_BATCHES, Fusion, ModelInfo, called
from gravswell.quiver.golden import Sample, column_scales, compare, load_golden, tolerance
from gravswell.quiver.manifest import GOLDEN, MODEL_FILE, Manifest, TensorRecord
from gravswell.quiver.signature import parse_shape

_VERSION = "gravswell.quiver.version.Version"

Dim = int | str | None
"""A size, a name for one that is open, or nothing known."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output of a model, and what the fusion calls it."""

    own: str
    name: str
    data_type: str
    dims: tuple[Dim, ...]
    """As ONNX Runtime sees the graph; the first is the batch."""


@dataclass(frozen=True, slots=True)
class Single:
    """One model by itself."""

    label: str
    """For messages: ``model 2 (deep)``."""
    number: int
    """Its first id."""
    name: str
    proto: ModelProto
    """Its graph, without functions and notes; the weights lie in :attr:`path` and beside it."""
    path: Path
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    samples: tuple[Sample, ...]
    """Batches, and what its own framework answers to them, by the graph's own names."""
    framework: str
    computes_in: np.dtype[Any] | None
    source: str | None
    """The version that it is, as ``entry/3``."""


def singles(fusion: Fusion, request: ExportRequest, folder: Path) -> tuple[list[Single], list[int]]:
    """Each different model once, and for each id the index of its model among them.

    Errors are those of an ordinary export, and say which model it was.
    """
    found: list[Single] = []
    known: dict[Any, int] = {}
    of: list[int] = []
    for number, info in enumerate(fusion.models, 1):
        key = _identity(info)
        if key not in known:
            label = f"model {number} ({info.name})"
            request.stage(f"exporting {label} of {len(fusion.models)}")
            place = folder / str(number)
            place.mkdir()
            try:
                found.append(_single(info, number, request, place))
            except GravswellError as error:
                raise type(error)(f"{label}: {error}") from error
            known[key] = len(found) - 1
        of.append(known[key])
    return found, of


def _identity(info: ModelInfo) -> Any:
    """The same for the same object, asked for in the same words."""
    model = info.model
    if class_names(model) & {_VERSION}:
        same: Any = (model.location, model.digest)
    else:
        same = str(model) if isinstance(model, str) or hasattr(model, "__fspath__") else id(model)
    words = (info.params, info.input_types, info.output_names, dict(info.rename))
    return same, id(info.inputs) if info.inputs is not None else None, repr(words)


def _single(info: ModelInfo, number: int, request: ExportRequest, folder: Path) -> Single:
    from gravswell.quiver.exporters import build  # noqa: PLC0415 - which has this exporter among its own

    published = info.model if _VERSION in class_names(info.model) else None
    manifest: Manifest | None = None
    if published is not None:
        _check_unasked(info)
        folder.rmdir()
        manifest = published.fetch(folder)
        if not (folder / MODEL_FILE).is_file():
            raise InvalidInputError("it is a pipeline, which has no graph: fuse the entries that it calls")
    computes_in = None
    if manifest is not None and _is_as_the_framework(manifest):
        samples, framework = load_golden(folder / GOLDEN), manifest.verification.reference
    else:
        if published is not None:
            (folder / "built").mkdir()
            info, folder = _as_file(info, folder), folder / "built"
        built = build(_request(info, request), folder, input_types=_types(info))
        samples, framework, computes_in = built.proof.samples, built.framework, built.computes_in
    path = folder / MODEL_FILE
    session = cpu_session(str(path))
    inputs = _tensors(session_inputs(session), session.get_inputs(), _renamed(info, session))
    outputs = _tensors(session_outputs(session), session.get_outputs(), _output_names(info, session))
    for tensor in (*inputs, *outputs):
        if not tensor.dims or isinstance(tensor.dims[0], int):
            side = "input" if tensor in inputs else "output"
            shape = [-1 if not isinstance(dim, int) else dim for dim in tensor.dims]
            raise InvalidInputError(
                f"{side} {tensor.own!r} has shape {shape}, and a fusion routes row by row: every input and output has "
                f"to lead with any number of rows; export the model with None as its first dimension"
            )
    request.stage(f"comparing the rows of model {number} ({info.name}) with each by itself")
    _check_rows(session, samples, computes_in)
    return Single(
        label=f"model {number} ({info.name})",
        number=number,
        name=info.name,
        proto=_plain(files.load(path)),
        path=path,
        inputs=inputs,
        outputs=outputs,
        samples=tuple(samples),
        framework=framework,
        computes_in=computes_in,
        source=None if published is None else f"{published.entry}/{int(published)}",
    )


def _check_rows(session: Any, samples: Sequence[Sample], computes_in: np.dtype[Any] | None) -> None:
    """ExportError where a row's answer depends on those beside it: these are never the same ones in a fusion."""
    batch = max((sample.inputs for sample in samples), key=rows_of)
    rtol, atol = (None, None) if computes_in is None else tolerance(computes_in)
    scales = column_scales([sample.outputs for sample in samples])
    try:
        check_rows_apart(partial(run, session), batch, partial(compare, rtol=rtol, atol=atol, scales=scales))
    except VerificationError as error:
        raise ExportError(
            f"a row's answer depends on the other rows of its batch ({error}), and a fusion gives a model only the "
            f"rows that name it, of whoever asks: have the model work on each row by itself, or serve it as an entry "
            f"of its own"
        ) from None


def _is_as_the_framework(manifest: Manifest) -> bool:
    """Whether its golden batches hold for its graph at the ordinary tolerance; not those of a quantized version."""
    proof = manifest.verification
    return proof.variant is None and proof.rtol is None and proof.atol is None


def _check_unasked(info: ModelInfo) -> None:
    if info.inputs is not None or info.input_types is not None:
        raise InvalidInputError("a published version knows its inputs: leave inputs and input_types out")


def _as_file(info: ModelInfo, folder: Path) -> ModelInfo:
    return ModelInfo(
        folder / MODEL_FILE,
        name=info.name,
        output_names=info.output_names,
        rename=info.rename,
    )


def _types(info: ModelInfo) -> dict[str, str]:
    return {name: parse_data_type(value, tensor=name) for name, value in (info.input_types or {}).items()}


def _request(info: ModelInfo, request: ExportRequest) -> ExportRequest:
    shapes, samples = _given(info)
    types = _types(info)
    specs = [InputSpec(name, types.get(name), parse_shape(name, shape)) for name, shape in shapes.items()]
    return ExportRequest(
        model=info.model,
        inputs=tuple(specs) or None,
        opset=None,
        target=request.target,
        samples=samples,
        stage=request.stage,
    )


def _given(info: ModelInfo) -> tuple[dict[str, Sequence[int | None]], tuple[Mapping[str, Any], ...]]:
    """The shapes, or the batches, that :attr:`ModelInfo.inputs` is."""
    given = info.inputs
    if inspect.isroutine(given):
        try:
            given = called(given, info.params)
            if not isinstance(given, Mapping) and isinstance(given, Iterable):
                given = list(islice(given, FEW_BATCHES))
        except Exception as error:
            raise ExportError(f"its function of inputs failed: {described(error)}") from error
    if given is None:
        return {}, ()
    if isinstance(given, Mapping) and given and not any(hasattr(value, "dtype") for value in given.values()):
        return dict(given), ()
    samples = (given,) if isinstance(given, Mapping) else tuple(given) if isinstance(given, Sequence) else ()
    if not samples or not all(isinstance(sample, Mapping) and sample for sample in samples):
        raise InvalidInputError(
            'its inputs are shapes, {"x": (None, 64)}; a batch of arrays, {"x": array}, or several; or a function that '
            "gives batches"
        )
    return {}, samples


def _renamed(info: ModelInfo, session: Any) -> list[str]:
    own = [node.name for node in session.get_inputs()]
    unknown = sorted(set(info.rename) - set(own))
    if unknown:
        raise InvalidInputError(f"rename names {', '.join(unknown)}, which is no input; it takes {', '.join(own)}")
    return [info.rename.get(name, name) for name in own]


def _output_names(info: ModelInfo, session: Any) -> list[str]:
    own = [node.name for node in session.get_outputs()]
    if info.output_names is None:
        return own
    if len(info.output_names) != len(own) or len(set(info.output_names)) < len(own):
        raise InvalidInputError(
            f"output_names {', '.join(info.output_names)}: it has {len(own)} outputs ({', '.join(own)}), and each "
            f"needs a name of its own"
        )
    return list(info.output_names)


def _tensors(records: Sequence[TensorRecord], nodes: Sequence[Any], names: Sequence[str]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(record.name, name, record.data_type, tuple(_dim(dim) for dim in node.shape))
        for record, node, name in zip(records, nodes, names, strict=True)
    )


def _dim(dim: Any) -> Dim:
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return str(dim) if dim else None


def _plain(proto: ModelProto) -> ModelProto:
    """The graph without notes, and with its functions written out where they are called."""
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise InvalidInputError(
            f"weight {name!r} is a sparse tensor, which a fusion does not take: make it a dense one"
        )
    graph.strip_sources(proto)
    return proto
