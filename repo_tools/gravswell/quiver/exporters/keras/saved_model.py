"""A TensorFlow SavedModel: the folder that ``model.export()`` and ``tf.saved_model.save()`` write."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.datatypes import parse_data_type
from gravswell.quiver.exporters.base import (
    Exported,
    Exporter,
    ExportRequest,
    Inputs,
    InputSpec,
    described,
    named_outputs,
    with_chosen_sizes,
)
from gravswell.quiver.exporters.keras.exporter import imported
from gravswell.quiver.exporters.keras.noise import quiet

_FILE, _SERVED = "saved_model.pb", "serving_default"


class SavedModelExporter(Exporter):
    """Inputs and outputs are those of the signature ``serving_default``; the reference is TensorFlow itself.

    Its graph is a program, which may read and write files: only folders of people that are trusted.
    """

    name = "TensorFlow SavedModel (path of its folder)"
    traces = True

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        return isinstance(model, str | os.PathLike) and Path(os.fspath(model), _FILE).is_file()

    def opened(self, request: ExportRequest) -> ExportRequest:
        """See :meth:`Exporter.opened`."""
        return replace(request, model=_load(Path(os.fspath(request.model))))

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`. The user may choose the sizes that the signature leaves open."""
        return with_chosen_sizes(request, request.model.inputs, "the SavedModel")

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Any]]:
        """See :meth:`Exporter.answering`. A batch gives the model's tensors as named arrays, in order."""
        work = imported()
        yield lambda inputs: work.answer(request.model.call, inputs)

    @contextmanager
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
        work, model, specs = imported(), request.model, self.inputs(request)
        with self.answering(request) as answer:
            names, reference = named_outputs(request, specs, answer, batches[0])
            proto = work.converted(request, model.root, model.call, specs=specs, outputs=names, told="the SavedModel")
            yield Exported(
                proto=proto,
                source=None,
                converted=True,
                exporter=work.EXPORTER,
                framework=work.FRAMEWORK,
                reference=reference,
            )


class _Loaded:
    """A SavedModel, and its signature as a function from named tensors to named ones."""

    def __init__(self, root: Any, function: Any) -> None:
        self.root = root
        self._function = function
        _, given = function.structured_input_signature
        self.inputs = tuple(
            InputSpec(name, parse_data_type(spec.dtype.name, tensor=name), _shape(name, spec))
            for name, spec in sorted(given.items())
        )

    def call(self, tensors: Any) -> list[tuple[str, Any]]:
        """Every tensor of the answer with its name, in the names' order."""
        return sorted(self._function(**tensors).items())


def _shape(name: str, spec: Any) -> tuple[int | None, ...]:
    if spec.shape.rank is None:
        raise ExportError(f"input {name!r} of the SavedModel has any number of dimensions: save it with a shape")
    return tuple(spec.shape.as_list())


def _load(path: Path) -> _Loaded:
    with quiet():
        first = "tensorflow" not in sys.modules
        work = imported()
        if first:
            work.leave_gpus()
    try:
        with quiet():
            root = work.load(path)
    except Exception as error:
        raise InvalidInputError(f"TensorFlow does not load {path} ({described(error)}): save the model anew") from error
    if _SERVED not in root.signatures:
        known = ", ".join(root.signatures) or "none"
        raise InvalidInputError(
            f"{path} has no signature {_SERVED!r}, but {known}: save it with model.export(), or with "
            f"tf.saved_model.save(…, signatures={{'{_SERVED}': function}})"
        )
    return _Loaded(root, root.signatures[_SERVED])
