"""A Keras 3 model, or the ``.keras`` file of one, exported by what suits the backend that it runs on."""

import itertools
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gravswell.errors import ExportError, InvalidInputError, NotFoundError, UnsupportedError
from gravswell.extras import install
from gravswell.quiver.exporters.base import (
    Exported,
    Exporter,
    ExportRequest,
    Inputs,
    InputSpec,
    class_names,
    described,
    file_of,
    named_outputs,
)
from gravswell.quiver.exporters.keras import calling
from gravswell.quiver.exporters.keras.noise import quiet
from gravswell.quiver.exporters.sampling import PLANS, random_batches
from gravswell.quiver.exporters.torch.exporter import TorchExporter

_FILES = (".keras", ".h5")
"""Of whole models; ``.weights.h5`` says nothing of the model that its weights belong to."""


class KerasExporter(Exporter):
    """Inputs and outputs have the names, the order and the types that they have in Keras; the batch is dynamic.

    A model on TensorFlow goes through tf2onnx, one on torch through torch's own exporter. The reference is the model
    itself, on the backend that it runs on.
    """

    name = "Keras model (or path of a .keras or .h5 file)"
    traces = True

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        return "keras.src.models.model.Model" in class_names(model) or file_of(model, *_FILES) is not None

    def opened(self, request: ExportRequest) -> ExportRequest:
        """See :meth:`Exporter.opened`."""
        path = file_of(request.model, *_FILES)
        if path is not None:
            return replace(request, model=_load(path))
        if not request.model.built and request.inputs and len(request.inputs) == 1:
            _build(request.model, request.inputs[0])
        return request

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`."""
        return calling.inputs(request)

    def own_batches(self, request: ExportRequest) -> list[Inputs] | None:
        """See :meth:`Exporter.own_batches`. Texts are those that the model looks up, and others."""
        specs = self.inputs(request)
        texts = calling.known_texts(request.model)
        if not texts or not any(spec.data_type == "TYPE_STRING" for spec in specs):
            return None
        values = itertools.cycle(np.random.default_rng(20151).permutation([*texts, "", "?"]))
        return [
            {
                name: np.array([next(values) for _ in range(array.size)]).reshape(array.shape)
                if array.dtype.kind == "U"
                else array
                for name, array in batch.items()
            }
            for batch in random_batches(specs, PLANS[-1])
        ]

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Any]]:
        """See :meth:`Exporter.answering`. A batch gives the model's tensors as named arrays, in order."""
        specs = self.inputs(request)
        if _backend() == "torch":
            with TorchExporter().answering(_as_torch(request, specs)) as answer:
                yield answer
            return
        work = _tensorflow()
        call = calling.Call(request.model, specs)
        with work.undisturbed(request.model):
            yield lambda inputs: work.answer(call, inputs)

    @contextmanager
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
        specs = self.inputs(request)
        if _backend() == "torch":
            with TorchExporter().exporting(_as_torch(request, specs), batches) as exported:
                yield replace(
                    exported,
                    framework=f"keras {_version()} on {exported.framework}",
                    computes_in=_computes_in(request.model),
                )
            return
        work = _tensorflow()
        with self.answering(request) as answer:
            names, reference = named_outputs(request, specs, answer, batches[0])
            yield Exported(
                proto=work.export(request, calling.Call(request.model, specs), specs, names),
                source=None,
                converted=True,
                exporter=work.EXPORTER,
                framework=f"keras {_version()} on {work.FRAMEWORK}",
                reference=reference,
                ailing=lambda: _ailing(request.model),
                computes_in=_computes_in(request.model),
            )


def _as_torch(request: ExportRequest, specs: tuple[InputSpec, ...]) -> ExportRequest:
    try:
        from gravswell.quiver.exporters.keras.on_torch import as_module  # noqa: PLC0415 - imports torch
    except ImportError as error:
        raise _lacking(error) from None
    if not request.model.built:
        raise InvalidInputError(
            f"{type(request.model).__name__} was never built: call it once on a batch, then export it"
        )
    return replace(request, model=as_module(request.model, specs), inputs=specs)


def _tensorflow() -> Any:
    backend = _backend()
    if backend != "tensorflow":
        raise UnsupportedError(
            f"Keras runs on {backend} here, from which no converter leads to ONNX: save the model with "
            f"model.save('model.keras'), and export that file from a process with KERAS_BACKEND=tensorflow or torch"
        )
    return imported()


def imported() -> Any:
    """The work on TensorFlow. UnsupportedError, naming what to install, where there is none of it."""
    try:
        from gravswell.quiver.exporters.keras import on_tensorflow  # noqa: PLC0415 - imports TensorFlow
    except ImportError as error:
        raise _lacking(error) from None
    return on_tensorflow


def _lacking(error: ImportError) -> UnsupportedError:
    """TensorFlow is in no extra: it comes as several packages, of which one breaks the other that somebody has."""
    name = error.name or "keras"
    how = "pip install tensorflow-cpu" if name.startswith("tensorflow") else install("keras")
    return UnsupportedError(f"exporting Keras needs {name}: {how}")


def _backend() -> str:
    import keras  # noqa: PLC0415 - a framework is imported only when it is used

    return str(keras.config.backend())


def _version() -> str:
    import keras  # noqa: PLC0415 - a framework is imported only when it is used

    return str(keras.__version__)


def _load(path: Path) -> Any:
    """The model in the file. Code in it is never run: Keras itself refuses lambdas that were saved in one."""
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    if path.name.endswith(".weights.h5"):
        raise InvalidInputError(
            f"{path} holds weights alone: load them into their model, and export that, or the file of its save()"
        )
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):  # of which Keras says that it is not there
        raise InvalidInputError(
            f"{path} is no .keras file, which is a zip archive: give the file of the model's save()"
        )
    try:
        with quiet():
            first = "tensorflow" not in sys.modules
            import keras  # noqa: PLC0415 - a framework is imported only when it is used

            if first and _backend() == "tensorflow":
                imported().leave_gpus()
            return keras.saving.load_model(path, compile=False)
    except ImportError as error:
        raise _lacking(error) from None
    except Exception as error:
        raise ExportError(
            f"Keras does not load {path} ({described(error)}): where it is made of your own layers or of lambdas, load "
            f"it where they are known, and export the model object"
        ) from error


def _build(model: Any, spec: InputSpec) -> None:
    """Keras would build a ``Sequential`` at its first call, for the sizes of that batch alone."""
    if "keras.src.models.sequential.Sequential" not in class_names(model):
        return
    try:
        model.build(spec.shape)
    except Exception as error:
        raise InvalidInputError(
            f"{type(model).__name__} cannot be built for {spec.name} of shape {spec.shape} ({described(error)}): "
            f"declare the shape that it takes"
        ) from error


def _computes_in(model: Any) -> Any:
    """numpy's float16 where some layer computes in it, whatever its answers are; else None."""
    half = any(layer.compute_dtype == "float16" for layer in calling.layers_of(model))
    return np.dtype(np.float16) if half else None


def _ailing(model: Any) -> str:
    """Which weights hold NaN, as the end of a message; empty if none does."""
    import keras  # noqa: PLC0415 - a framework is imported only when it is used

    floating = (v for v in model.variables if keras.backend.is_float_dtype(v.dtype))
    found = [v.path for v in floating if bool(keras.ops.any(keras.ops.isnan(v)))]
    return f" ({', '.join(found[:3])}{' and others' * (len(found) > 3)} of the model hold NaN)" if found else ""
