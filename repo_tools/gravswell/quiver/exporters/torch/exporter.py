"""A torch module, exported by ``torch.onnx``: the default exporter first, the tracing one where that fails."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gravswell.errors import ExportError, InvalidInputError, UnsupportedError
from gravswell.extras import install
from gravswell.quiver.exporters.base import (
    Exported,
    Exporter,
    ExportRequest,
    Inputs,
    InputSpec,
    class_names,
    named_outputs,
)
from gravswell.quiver.exporters.sampling import specs_of_samples, type_of_samples

_PARALLEL = {
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch.nn.parallel.distributed.DistributedDataParallel",
}


_PROGRAM = "torch.export.exported_program.ExportedProgram"


class TorchExporter(Exporter):
    """Inputs are matched to ``forward``'s parameters by name, or else by position, or are the dict that it takes.

    An exported program knows its own inputs.
    """

    name = "torch module"
    traces = True

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        return not class_names(model).isdisjoint({"torch.nn.modules.module.Module", _PROGRAM})

    def opened(self, request: ExportRequest) -> ExportRequest:
        """See :meth:`Exporter.opened`."""
        if _PROGRAM not in class_names(request.model):
            return request
        _work()
        from gravswell.quiver.exporters.torch.calling import Program, inputs_of  # noqa: PLC0415 - imports torch

        return replace(request, model=Program(request.model), inputs=request.inputs or inputs_of(request.model))

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`. The type is the one that the module's weights have."""
        inputs = request.inputs or specs_of_samples(request)
        if not inputs:
            raise InvalidInputError(
                f"a torch module does not say what it takes: give the shapes of the inputs of "
                f'{type(request.model).__name__}, such as input_shapes={{"x": (None, 64)}} with None for the batch'
            )
        inputs = tuple(replace(spec, data_type=spec.data_type or type_of_samples(request, spec)) for spec in inputs)
        if all(spec.data_type for spec in inputs):
            return inputs
        default = _floating_type(request.model)
        return tuple(replace(spec, data_type=spec.data_type or default) for spec in inputs)

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Any]]:
        """See :meth:`Exporter.answering`. A batch gives the module's tensors as named arrays, in order."""
        work = _work()
        from gravswell.quiver.exporters.torch.state import undisturbed  # noqa: PLC0415 - imports torch

        model, specs = _unwrapped(request.model), self.inputs(request)
        with undisturbed(model):
            yield lambda inputs: work.answer(model, specs, inputs)

    @contextmanager
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
        work = _work()
        request = replace(request, model=_unwrapped(request.model))
        with (
            tempfile.TemporaryDirectory(prefix="gravswell-torch-", dir=request.folder) as folder,
            self.answering(request) as answer,
        ):
            specs = self.inputs(request)
            names, reference = named_outputs(request, specs, answer, batches[0])
            made = work.export(request, specs, batches, names, Path(folder))
            yield Exported(
                proto=made.proto,
                source=made.source,
                converted=True,
                exporter=made.exporter,
                framework=work.FRAMEWORK,
                reference=reference,
                ailing=lambda: work.ailing(request.model),
                assumptions=made.assumptions,
            )


def _unwrapped(model: Any) -> Any:
    """The module itself, which computes the same, out of ``torch.compile`` and out of several devices' copies of it."""
    while True:
        names = class_names(model)
        if "torch._dynamo.eval_frame.OptimizedModule" in names:
            model = model._orig_mod
        elif names & _PARALLEL:
            model = model.module
        else:
            return model


def _work() -> Any:
    try:
        from gravswell.quiver.exporters.torch import export  # noqa: PLC0415 - imports torch
    except ImportError as error:
        raise UnsupportedError(f"exporting torch needs {error.name}: {install('torch')}") from None
    return export


def _floating_type(model: Any) -> str:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            name = str(tensor.dtype).removeprefix("torch.")
            found = {"float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64"}.get(name)
            if found is None:
                raise ExportError(
                    f"the weights are {name}, which cannot be proved here: convert the module to float32; or, where it "
                    f'computes in another type, state what goes in: input_types={{"x": "float32"}} '
                    f"(--input-type x=float32)"
                )
            return found
    return "TYPE_FP32"
