"""An existing ONNX model: a file's path, or a ``ModelProto``."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime as ort

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.exporters.base import Exported, Exporter, ExportRequest, Inputs, InputSpec, class_names, described
from gravswell.quiver.exporters.graph import check_in_memory, default_opset, load
from gravswell.quiver.exporters.proof import run, session_inputs, session_outputs


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model that was read: a large one is, and gets its session, in seconds."""

    proto: Any
    """With its data in memory."""
    source: Path | None
    """The file to publish unchanged, where it is a single one."""
    session: ort.InferenceSession


class OnnxExporter(Exporter):
    """Publishes the model as it is, byte for byte where it is one file that the servers accept.

    The reference is ONNX Runtime itself on the original, with its graph optimizations off.
    """

    name = "ONNX model (path or ModelProto)"

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        if isinstance(model, str | os.PathLike):
            return True
        return any(name.startswith("onnx") and name.endswith(".ModelProto") for name in class_names(model))

    def opened(self, request: ExportRequest) -> ExportRequest:
        """See :meth:`Exporter.opened`. One session serves the signature, the search for inputs and the reference."""
        return replace(request, model=_open(request.model))

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`. The graph says; what the user says must agree with it."""
        records = {spec.name: spec for spec in _declared(request.model.session)}
        for spec in () if request.inferred else request.inputs or ():
            if spec.name not in records:
                raise InvalidInputError(f"the graph has no input {spec.name!r}; its inputs: {', '.join(records)}")
            declared = records[spec.name]
            if spec.shape != declared.shape or spec.data_type not in (None, declared.data_type):
                raise InvalidInputError(
                    f"input {spec.name!r} is {declared.data_type} {_dims(declared.shape)} in the graph, "
                    f"not {spec.data_type or declared.data_type} {_dims(spec.shape)}: leave the shapes out"
                )
        return tuple(records.values())

    @contextmanager
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
        del batches  # nothing is traced
        proto = request.model.proto
        if request.opset is not None and request.opset != default_opset(proto):
            raise InvalidInputError(
                f"the model is in opset {default_opset(proto)}: leave opset={request.opset} out, "
                f"or convert the model first"
            )
        names = [output.name for output in proto.graph.output]
        given = None if request.inferred else request.output_names
        if given is not None and sorted(given) != sorted(names):
            raise InvalidInputError(
                f"the graph's outputs are {', '.join(names)}, not {', '.join(given)}: "
                f"leave output_names out, or rename them in the model"
            )
        with self.answering(request) as answer:
            yield Exported(
                proto=proto,
                source=request.model.source,
                converted=False,
                exporter="ONNX, as it was given",
                framework=f"onnxruntime {ort.__version__}",
                reference=answer,
            )

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Any]]:
        """See :meth:`Exporter.answering`."""
        session = request.model.session
        yield lambda inputs: run(session, inputs)


def _declared(session: ort.InferenceSession) -> list[InputSpec]:
    session_outputs(session)  # names one that cannot be served, before anything is run
    return [
        InputSpec(r.name, r.data_type, tuple(None if dim == -1 else dim for dim in r.dims))
        for r in session_inputs(session)
    ]


def _open(model: Any) -> _Opened:
    if isinstance(model, str | os.PathLike):
        path = Path(os.fspath(model))
        proto, external = load(path)
        return _Opened(proto, None if external else path, _session(str(path)))
    check_in_memory(model)
    return _Opened(model, None, _session(model.SerializeToString()))


def _session(given: str | bytes) -> ort.InferenceSession:
    """ONNX Runtime with a file, by its path, which holds for external data and above 2 GiB too; or with its bytes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no base
        raise ExportError(f"ONNX Runtime {ort.__version__} does not load the model: {described(error)}") from error


def _dims(shape: tuple[int | None, ...]) -> list[int]:
    return [-1 if dim is None else dim for dim in shape]
