"""An existing ONNX model: a file's path, or a ``ModelProto``."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.exporters.base import (
    Exported,
    Exporter,
    ExportRequest,
    Inputs,
    InputSpec,
    Outputs,
    class_names,
    described,
    with_chosen_sizes,
)
from gravswell.quiver.exporters.files import DATA_FILE, load, size_of, write
from gravswell.quiver.exporters.fused.metadata import fused_models, optional_inputs, with_known_ids
from gravswell.quiver.exporters.graph import default_opset
from gravswell.quiver.exporters.onnx_values import index_bounds, integer_inputs
from gravswell.quiver.exporters.proof import cpu_session, run, session_inputs, session_outputs
from gravswell.quiver.exporters.sampling import PLANS, random_batches
from gravswell.quiver.exporters.weights import data_files

_LARGE = 64 << 20
"""Bytes of a model in memory from which on it is written to a file first: a session of bytes takes several times."""


class _Opened:
    """A model that was read, without its weights, and ONNX Runtime with it, which holds them.

    One session serves the signature, the search for inputs and the reference: with a large model, each takes seconds.
    """

    def __init__(
        self,
        proto: Any,
        source: Path | None,
        session: ort.InferenceSession,
        folder: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.proto = proto
        """As far as it is in memory."""
        self.source = source
        """The file that it was read from, in ``folder`` where it had to be written first."""
        self.folder = folder
        self._session: ort.InferenceSession | None = session

    @property
    def session(self) -> ort.InferenceSession:
        """ONNX Runtime with the model, until :meth:`forget`."""
        assert self._session is not None, "the model was closed"
        return self._session

    def answer(self, batch: Inputs) -> Outputs:
        """What it makes of a batch."""
        return run(self.session, batch)

    def forget(self) -> None:
        """Give back the memory of the session: the next one holds as much."""
        self._session = None

    def close(self) -> None:
        """Give back the disk too."""
        self.forget()
        if self.folder is not None:
            self.folder.cleanup()


class _Answers:
    """What a model answered to some batches, for when it is closed."""

    def __init__(self, model: _Opened, batches: Sequence[Inputs]) -> None:
        self._known: list[tuple[Inputs, Outputs | Exception]] = []
        for batch in batches:
            try:
                self._known.append((batch, model.answer(batch)))
            except Exception as error:  # noqa: BLE001 - told to whoever asks for this answer
                self._known.append((batch, error.with_traceback(None)))

    def __call__(self, batch: Inputs) -> Outputs:
        answer = next(answer for known, answer in self._known if known is batch)
        if isinstance(answer, Exception):
            raise answer
        return answer


class OnnxExporter(Exporter):
    """Publishes the model as it is, byte for byte where it is one file that the servers accept.

    The reference is ONNX Runtime itself on the original, with its graph optimizations off.
    """

    name = "ONNX model (path or ModelProto)"
    hint = "; sizes that it takes are input_shapes, such as {'x': (1, 3, 48, 320)} (--input-shape x=1,3,48,320)"

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        if isinstance(model, str | os.PathLike):
            return True
        return any(name.startswith("onnx") and name.endswith(".ModelProto") for name in class_names(model))

    def opened(self, request: ExportRequest) -> ExportRequest:
        """See :meth:`Exporter.opened`."""
        return replace(request, model=_open(request.model, request.inputs or (), request.folder))

    def closed(self, request: ExportRequest) -> None:
        """See :meth:`Exporter.closed`."""
        request.model.close()

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`. The graph says; the user may choose the sizes that it leaves open."""
        return with_chosen_sizes(request, _declared(request.model), "the graph")

    def own_batches(self, request: ExportRequest) -> list[Inputs] | None:
        """See :meth:`Exporter.own_batches`. Indices within their table, flags beside them, ids that a fusion has."""
        proto = request.model.proto
        bounds = index_bounds(proto)
        if fused_models(proto):
            return with_known_ids(proto, random_batches(request.inputs or (), PLANS[0]))
        if not bounds:
            return None
        flags = dict.fromkeys(integer_inputs(proto.graph), 2)  # such as the mask that comes with token ids
        below = {name: bound or PLANS[0].below for name, bound in bounds.items()}
        return random_batches(request.inputs or (), PLANS[0], flags | below)

    @contextmanager
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
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
        answers = _Answers(request.model, batches)
        request.model.forget()
        yield Exported(
            proto=proto,
            source=request.model.source,
            converted=False,
            exporter="ONNX, as it was given",
            framework=f"onnxruntime {ort.__version__}",
            reference=answers,
        )

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Any]]:
        """See :meth:`Exporter.answering`."""
        yield request.model.answer


def _declared(model: _Opened) -> list[InputSpec]:
    session_outputs(model.session)  # names one that cannot be served, before anything is run
    return [InputSpec.of(record) for record in session_inputs(model.session, optional_inputs(model.proto))]


def _open(model: Any, specs: Sequence[InputSpec], within: Path | None) -> _Opened:
    source = Path(os.fspath(model)) if isinstance(model, str | os.PathLike) else None
    given = load(source) if source is not None else model
    proto = with_shapes(given, {spec.name: spec.shape for spec in specs})
    if source is not None and proto is given:
        beside = any(location != source.name for _, location in data_files(proto))
        return _Opened(proto, source, _session(str(source), mapped=beside))
    if source is None and size_of(proto, None) < _LARGE:
        return _Opened(proto, None, _session(proto.SerializeToString()))
    folder = tempfile.TemporaryDirectory(prefix="gravswell-model-", dir=within)
    try:
        with refusals_told(Path(folder.name)):
            path = write(proto, Path(folder.name), source)
        return _Opened(load(path), path, _session(str(path), mapped=path.with_name(DATA_FILE).is_file()), folder)
    except BaseException:
        folder.cleanup()
        raise


def with_shapes(proto: Any, shapes: Mapping[str, tuple[int | None, ...]]) -> Any:
    """The model with a shape for every input: ``shapes`` says those that the graph does not state."""
    own = {tensor.name for tensor in proto.graph.initializer}
    open_ = [i.name for i in proto.graph.input if i.name not in own and _has_no_shape(i)]
    unknown = [name for name in open_ if name not in shapes]
    if unknown:
        raise InvalidInputError(
            f"the graph does not state how many dimensions input {unknown[0]!r} has: say so as input_shapes, "
            f'{{"{unknown[0]}": (None, 64)}}, or () for a single number (--input-shape {unknown[0]}=-1,64)'
        )
    if not open_:
        return proto
    stated = onnx.ModelProto()
    stated.CopyFrom(proto)
    for value in stated.graph.input:
        if value.name in open_:
            shape = value.type.tensor_type.shape
            shape.SetInParent()
            for axis, dim in enumerate(shapes[value.name]):
                shape.dim.add(**({"dim_param": f"{value.name}_{axis}"} if dim is None else {"dim_value": dim}))
    return stated


def _has_no_shape(value: Any) -> bool:
    return value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")


def _session(given: str | bytes, *, mapped: bool = False) -> ort.InferenceSession:
    """ONNX Runtime with a file, by its path, which holds for external data and above 2 GiB too; or with its bytes."""
    try:
        return cpu_session(given, as_written=True, mapped=mapped)
    except Exception as error:  # ONNX Runtime's own errors share no base
        raise ExportError(f"ONNX Runtime {ort.__version__} does not load the model: {described(error)}") from error
