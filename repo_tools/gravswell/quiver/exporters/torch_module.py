"""A torch module, exported by ``torch.onnx``: the default exporter first, the tracing one where that fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gravswell.errors import ExportError, InvalidInputError, UnsupportedError
from gravswell.quiver.exporters.base import Exported, Exporter, ExportRequest, Inputs, InputSpec, Outputs, class_names
from gravswell.quiver.golden import Array


class TorchExporter(Exporter):
    """Inputs are matched to ``forward``'s parameters by name, or else by position."""

    name = "torch module"

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        return "torch.nn.modules.module.Module" in class_names(model)

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`. The type is the one that the module's weights have."""
        if not request.inputs:
            raise InvalidInputError(
                f"a torch module does not say what it takes: give the shapes of the inputs of "
                f'{type(request.model).__name__}, such as input_shapes={{"x": (None, 64)}} with None for the batch'
            )
        default = _floating_type(request.model)
        return tuple(InputSpec(spec.name, spec.data_type or default, spec.shape) for spec in request.inputs)

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Any]]:
        """See :meth:`Exporter.answering`. A batch gives the module's tensors as named arrays, in order."""
        work = _work()
        specs = self.inputs(request)
        with work.undisturbed(request.model):
            yield lambda inputs: work.answer(request.model, specs, inputs)

    @contextmanager
    def exporting(self, request: ExportRequest, example: Inputs) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
        work = _work()
        with self.answering(request) as answer:
            own: list[tuple[str, Array]] = answer(example)
            names = list(request.output_names or (name for name, _ in own))
            if len(names) != len(own):
                raise InvalidInputError(
                    f"{len(names)} output_names ({', '.join(names)}) for the {len(own)} tensors "
                    f"that {type(request.model).__name__} returns: name each"
                )
            proto, how = work.export(request, self.inputs(request), example, names)

            def reference(inputs: Inputs) -> Outputs:
                return {name: array for name, (_, array) in zip(names, answer(inputs), strict=True)}

            yield Exported(
                proto=proto,
                source=None,
                converted=True,
                exporter=how,
                framework=work.FRAMEWORK,
                reference=reference,
            )


def _work() -> Any:
    try:
        from gravswell.quiver.exporters import torch_export  # noqa: PLC0415 - imports torch
    except ImportError as error:
        raise UnsupportedError(f"exporting torch needs {error.name}: pip install 'gravswell[torch]'") from None
    return torch_export


def _floating_type(model: Any) -> str:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            name = str(tensor.dtype).removeprefix("torch.")
            found = {"float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64"}.get(name)
            if found is None:
                raise ExportError(f"the module computes in {name}, which cannot be proved here: convert it to float32")
            return found
    return "TYPE_FP32"
