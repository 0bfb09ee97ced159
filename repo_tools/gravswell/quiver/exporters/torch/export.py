"""The work of :mod:`~gravswell.quiver.exporters.torch.exporter`, apart from it because it imports torch."""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxscript  # noqa: F401 - torch's default exporter needs it, and fails late without it
import torch

from gravswell.errors import ExportError, UnavailableError
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.exporters.base import Assumption, ExportRequest, Inputs, InputSpec, described
from gravswell.quiver.exporters.files import load
from gravswell.quiver.exporters.sampling import is_batched
from gravswell.quiver.exporters.torch.calling import (
    ByName,
    InOrder,
    keyword_only,
    own_parameters,
    parameters_of,
    with_tensors_as_parameters,
)
from gravswell.quiver.exporters.torch.noise import quiet, without_graphs
from gravswell.quiver.exporters.torch.sizes import assumptions
from gravswell.quiver.exporters.torch.tracing import Readings, check_same, nothing_frozen
from gravswell.quiver.golden import Array
from gravswell.quiver.manifest import MODEL_FILE

FRAMEWORK = f"torch {torch.__version__}"

_OPSET = 18
"""What the default exporter is written in; the servers take up to 21."""

_log = logging.getLogger(__name__)


def answer(model: Any, specs: tuple[InputSpec, ...], inputs: Inputs) -> list[tuple[str, Array]]:
    """What the module returns for a batch: every tensor, with its name where it has one."""
    model = with_tensors_as_parameters(model, specs)
    tensors = _tensors(model, specs, inputs)
    with torch.no_grad():
        by_name = set(tensors) <= set(own_parameters(model))
        return _flattened(model(**tensors) if by_name else model(*tensors.values()))


def ailing(model: Any) -> str:
    """Which weights and buffers hold NaN, as the end of a message; empty if none does."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    found = [name for name, tensor in tensors if tensor.is_floating_point() and bool(tensor.isnan().any())]
    return f" ({', '.join(found[:3])}{' and others' * (len(found) > 3)} of the module hold NaN)" if found else ""


def _tensors(model: Any, specs: tuple[InputSpec, ...], inputs: Inputs) -> dict[str, torch.Tensor]:
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), "cpu")
    parameters = parameters_of(model, specs)
    return {p: torch.from_numpy(inputs[spec.name].copy()).to(device) for p, spec in parameters.items()}


@dataclass(frozen=True, slots=True)
class Made:
    """The module as a ``ModelProto``, whose weights lie in the file ``source`` or beside it."""

    proto: Any
    source: Path
    exporter: str
    """Which one it was, with the reason where it was the second."""
    assumptions: tuple[Assumption, ...] = ()


def export(
    request: ExportRequest, specs: tuple[InputSpec, ...], batches: Sequence[Inputs], outputs: list[str], folder: Path
) -> Made:
    """Export into ``folder``, by torch's default exporter or by the tracing one where that fails.

    ``batches``: the first is the example; a trace is repeated with others, to see what changes with their sizes.
    """
    path = folder / MODEL_FILE
    if "tensorflow" in sys.modules:
        sys.modules.setdefault("triton", None)  # type: ignore[arg-type]  # loaded after it, its LLVM aborts the process
    model = with_tensors_as_parameters(request.model, specs)
    call = _Call(request, model, specs, batches[0], outputs)
    try:
        with quiet():
            program = call.by_default()
    except Exception as error:  # noqa: BLE001 - torch.export raises errors of many kinds
        reason = described(error, 200)
    else:
        try:
            assumed = assumptions(program.exported_program, call.specs, batches[0])
        except Exception as error:  # parts of torch that are not public, and may differ in another version
            raise ExportError(
                f"what torch {torch.__version__} took for granted of the sizes cannot be read ({described(error)}), so "
                f"that the graph cannot be proved for others; declare numbers in place of None in input_shapes"
            ) from error
        with quiet(), refusals_told(folder):
            program.save(path, external_data=True)  # weight by weight: as one message they would be in memory again
        return Made(load(path), path, f"torch.onnx {torch.__version__}", tuple(assumed))
    try:
        with quiet(), without_graphs(), refusals_told(folder):
            readings = call.by_tracing(path)
            for batch in _of_other_sizes(specs, batches) if readings else ():
                check_same(readings, _Call(request, model, specs, batch, outputs).read())
    except UnavailableError:  # the disk is full
        raise
    except ExportError as error:
        raise ExportError(f"{type(request.model).__name__} cannot be traced: {error}; untraced: {reason}") from error
    except Exception as error:  # so does the tracer
        raise ExportError(
            f"torch.onnx cannot export {type(request.model).__name__}: {reason}; by tracing: {described(error, 200)}"
        ) from error
    _log.warning("torch's default exporter failed (%s); the model was traced instead", reason)
    return Made(
        load(path), path, f"torch.onnx {torch.__version__}, traced because the default exporter failed: {reason}"
    )


class _Call:
    """The arguments of ``torch.onnx.export``, in the two forms that its two exporters want."""

    def __init__(
        self, request: ExportRequest, model: Any, specs: tuple[InputSpec, ...], example: Inputs, outputs: list[str]
    ) -> None:
        self._model = model
        parameters = parameters_of(self._model, specs)
        tensors = _tensors(self._model, specs, example)
        own = own_parameters(self._model)
        in_order = list(parameters) == own[: len(parameters)] and not keyword_only(self._model) & set(parameters)
        self._names = list(parameters)
        self.specs = list(parameters.values())
        self._args = tuple(tensors.values()) if in_order or not set(parameters) <= set(own) else ()
        self._kwargs = {} if self._args else tensors
        self._outputs = outputs
        self._batched = is_batched(specs)
        self._opset = request.opset_for(_OPSET)

    def by_default(self) -> Any:
        """The exporter over ``torch.export``."""
        batch = torch.export.Dim("batch")
        shapes = [
            {
                i: batch if i == 0 and self._batched else torch.export.Dim.DYNAMIC
                for i, dim in enumerate(spec.shape)
                if dim is None
            }
            for spec in self.specs
        ]
        positional = (tuple(shapes),) if isinstance(self._model, InOrder) else tuple(shapes)
        program = torch.onnx.export(
            self._model,
            self._args,
            kwargs=self._kwargs or None,
            dynamo=True,
            dynamic_shapes=dict(zip(self._names, shapes, strict=True)) if self._kwargs else positional,
            input_names=[spec.name for spec in self.specs],
            output_names=self._outputs,
            opset_version=self._opset,
            verbose=False,
        )
        if program is None:
            raise ExportError("torch.onnx.export returned nothing")
        written = program.model.opset_imports.get("", 0)
        if written > self._opset:  # torch only logs that it could not convert it
            raise ExportError(f"it writes opset {written}, and cannot bring that down to {self._opset}")
        return program

    def by_tracing(self, path: Path) -> Readings:
        """The exporter that records one run: it writes the file ``path``, and tells the sizes that were read in it.

        ExportError where the run went as it did because of the values in it, or of sizes that were declared dynamic.
        """
        axes = {
            spec.name: {i: "batch" if i == 0 else f"{spec.name}_{i}" for i, d in enumerate(spec.shape) if d is None}
            for spec in self.specs
        }
        with nothing_frozen(self.specs) as readings:
            torch.onnx.export(
                self._model,
                self._args,
                str(path),
                kwargs=self._kwargs or None,
                dynamo=False,
                input_names=[spec.name for spec in self.specs],
                output_names=self._outputs,
                dynamic_axes=axes | ({name: {0: "batch"} for name in self._outputs} if self._batched else {}),
                opset_version=self._opset,
            )
        return readings

    def read(self) -> Readings:
        """The sizes that are read in a trace, which is thrown away."""
        model = ByName(self._model, list(self._kwargs)) if self._kwargs else self._model
        with nothing_frozen(self.specs) as readings, torch.no_grad():
            torch.jit._get_trace_graph(model, self._args or tuple(self._kwargs.values()))  # type: ignore[attr-defined,no-untyped-call]
        return readings


def _of_other_sizes(specs: tuple[InputSpec, ...], batches: Sequence[Inputs]) -> Iterator[Inputs]:
    """As few batches as show every dynamic dim at another size than the first batch has it."""
    same = {(spec.name, axis) for spec in specs for axis, dim in enumerate(spec.shape) if dim is None}
    for batch in sorted(batches[1:], key=lambda batch: any(1 in array.shape for array in batch.values())):
        other = {(name, axis) for name, axis in same if batch[name].shape[axis] != batches[0][name].shape[axis]}
        if other:  # those without a 1 came first: it is broadcast, and dropped by squeeze
            same -= other
            yield batch


def _flattened(value: Any) -> list[tuple[str, Array]]:
    """Every tensor in what the module returned, in torch's own order, with a name from dict keys or a number."""
    leaves, _ = torch.utils._pytree.tree_flatten_with_path(value)
    found: list[tuple[str, Array]] = []
    for path, leaf in leaves:
        if leaf is None:
            continue
        if not isinstance(leaf, torch.Tensor):
            raise ExportError(
                f"the module returns a {type(leaf).__name__} beside its tensors: only tensors can be served; "
                f"wrap the module in one that returns tensors alone"
            )
        if leaf.is_complex():
            raise ExportError(f"output {len(found)} is complex: return its real and imaginary parts as two tensors")
        key = path[-1] if path else None
        label = getattr(key, "key", None) or getattr(key, "name", None)
        if leaf.dtype == torch.bfloat16:
            raise ExportError(f"output {len(found)} is bfloat16, which no numpy array holds: return it as float32")
        found.append((str(label) if isinstance(label, str) else "", leaf.detach().cpu().numpy()))
    if not found:
        raise ExportError("the module returns no tensor: there is nothing to serve")
    labels = [label for label, _ in found]
    unique = all(labels) and len(set(labels)) == len(labels)
    return [(label if unique else f"output_{k}", array) for k, (label, array) in enumerate(found)]
