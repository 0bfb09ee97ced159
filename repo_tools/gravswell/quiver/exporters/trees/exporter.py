"""What the exporters of boosted trees share: one input tensor, its own converter, proofs at every kind of threshold."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from onnx import ModelProto, TensorProto, helper

from gravswell import __version__
from gravswell.errors import GravswellError, InvalidInputError, NotFoundError, UnsupportedError
from gravswell.extras import install
from gravswell.quiver.datatypes import numpy_type
from gravswell.quiver.exporters.base import (
    Exported,
    Exporter,
    ExportRequest,
    Inputs,
    InputSpec,
    Outputs,
    check_names_differ,
    class_names,
    described,
    file_of,
)
from gravswell.quiver.exporters.drawing import Known, drawn_batches
from gravswell.quiver.exporters.trees.boosted import Boosted
from gravswell.quiver.exporters.trees.graph import MIN_OPSET, ML_DOMAIN, ML_OPSET, OPSET, Pieces, build, served_labels
from gravswell.quiver.golden import Array

_TIE = 1e-3
"""Probabilities of two classes that are no further apart are as good as equal: far above rounding in float32."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model that was read: a large one takes seconds."""

    model: Any
    boosted: Boosted


class TreesExporter(Exporter):
    """One input ``x`` of shape (None, features), in which NaN is a missing value, and what the model answers."""

    classes: ClassVar[frozenset[str]]
    """Qualified names of the bases of all models."""
    module: ClassVar[str]
    """What is imported, and the name of the extra."""
    suffixes: ClassVar[tuple[str, ...]]
    """Of the files that it saves models in, which hold no code."""

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        return bool(class_names(model) & self.classes) or file_of(model, *self.suffixes) is not None

    @abstractmethod
    def load(self, path: Path) -> Any:
        """The model in a file. Raises whatever the framework raises."""

    @abstractmethod
    def read(self, model: Any) -> Boosted:
        """The model's trees.

        Raises InvalidInputError for a model that is not fitted, ExportError for one that ONNX cannot hold.
        """

    @abstractmethod
    def answers(self, model: Any, x: Array) -> Array:
        """What a bare booster answers to ``x`` of shape (rows, features): (rows,) or (rows, targets)."""

    def opened(self, request: ExportRequest) -> ExportRequest:
        """See :meth:`Exporter.opened`."""
        path = file_of(request.model, *self.suffixes)
        model = request.model if path is None else self._loaded(path)
        return replace(request, model=_Opened(model, self.read(model)))

    def _loaded(self, path: Path) -> Any:
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}")
        self._imported()
        try:
            return self.load(path)
        except GravswellError:
            raise
        except Exception as error:
            raise InvalidInputError(
                f"{self.module} does not load {path} ({described(error)}): give the file that its save_model wrote"
            ) from error

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`. Without shapes: ``x``, as wide as the model was fitted."""
        features = request.model.boosted.features
        asked = request.inputs or (InputSpec("x", None, (None, features)),)
        if len(asked) != 1:
            raise InvalidInputError(
                f"this {self.name} takes one tensor of all its {features} features, not "
                f"{', '.join(spec.name for spec in asked)}: stack them in the order in which it was fitted"
            )
        spec = asked[0]
        if len(spec.shape) != 2 or spec.shape[1] != features:
            names = ", ".join(request.model.boosted.names)
            raise InvalidInputError(
                f"input {spec.name!r} has shape {spec.shape}; the model was fitted on (None, {features})"
                f"{f': {names}' if names else ''}"
            )
        data_type = spec.data_type or "TYPE_FP32"
        if numpy_type(data_type).kind not in "fiub":
            raise InvalidInputError(f"input {spec.name!r} is {data_type}: boosted trees take numbers")
        return (replace(spec, data_type=data_type),)

    def own_batches(self, request: ExportRequest) -> list[Inputs] | None:
        """See :meth:`Exporter.own_batches`. On and beside the thresholds, and missing values."""
        boosted = request.model.boosted
        known = {column: [Known(ends, "edges")] for column, ends in boosted.edges().items()}
        if not known:
            return None
        with self.answering(request) as answer:
            return drawn_batches(known, self.inputs(request), lambda batch: _settled(answer(batch)), exact=True)

    @contextmanager
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
        del batches  # nothing is traced
        framework = self._imported()
        boosted = request.model.boosted
        (spec,) = self.inputs(request)
        opset, ml_opset = request.opset_for(OPSET), request.ml_opset_for(ML_OPSET)
        if opset < MIN_OPSET or ml_opset < ML_OPSET:
            raise InvalidInputError(
                f"boosted trees need opset {MIN_OPSET}, and {ML_OPSET} of {ML_DOMAIN}, or newer ones, not {opset} and "
                f"{ml_opset}: ask for no older opset, and for a target that is no older than Triton 22.07"
            )
        own = ("variable",) if boosted.classes is None else ("label", "probabilities")
        names = own if request.output_names is None else request.output_names
        if len(names) != len(own):
            raise InvalidInputError(
                f"{len(names)} output_names ({', '.join(names)}) for the {len(own)} outputs {', '.join(own)}: name each"
            )
        check_names_differ(names, [spec])
        with self.answering(request) as answer:
            yield Exported(
                proto=_graph(boosted, spec, names, opset),
                source=None,
                converted=True,
                exporter=f"gravswell {__version__}",
                framework=f"{self.module} {framework.__version__}",
                reference=lambda inputs: dict(zip(names, answer(inputs).values(), strict=True)),
            )

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Outputs]]:
        """See :meth:`Exporter.answering`. Outputs by our names for them."""
        self._imported()
        model, boosted = request.model.model, request.model.boosted

        def answer(inputs: Inputs) -> Outputs:
            (x,) = inputs.values()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it was fitted with names, and is given an array
                if boosted.classes is not None:
                    return {
                        "label": served_labels(np.asarray(model.predict(x))),
                        "probabilities": np.asarray(model.predict_proba(x)),
                    }
                bare = not hasattr(model, "fit")
                values = self.answers(model, x) if bare else np.asarray(model.predict(x))
                return {"variable": values.reshape(len(x), -1)}

        yield answer

    def _imported(self) -> Any:
        try:
            return import_module(self.module)
        except ImportError as error:
            raise UnsupportedError(f"exporting {self.name}s needs {error.name}: {install(self.module)}") from None


def _settled(outputs: Outputs) -> Array:
    """The rows whose label is not a tie, which rounding would decide."""
    if "probabilities" not in outputs:
        return np.ones(len(outputs["variable"]), dtype=bool)
    probabilities = outputs["probabilities"]
    if outputs["label"].ndim == 2:
        return np.asarray((np.abs(probabilities - 0.5) > _TIE / 2).all(axis=1))
    ordered = np.sort(probabilities, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2] > _TIE)


def _graph(boosted: Boosted, spec: InputSpec, names: Sequence[str], opset: int) -> ModelProto:
    taken, numbers = {spec.name, *names}, count()

    def fresh(name: str) -> str:
        return next(found for k in numbers if (found := f"{name}_{k}") not in taken)

    pieces = Pieces(fresh)
    elem_type = helper.np_dtype_to_tensor_dtype(numpy_type(spec.data_type or "TYPE_FP32"))
    build(boosted, spec.name, elem_type, names, pieces)
    rows = "rows" if spec.shape[0] is None else spec.shape[0]
    outputs: list[Any] = [(names[-1], TensorProto.FLOAT, [rows, boosted.width])]
    if boosted.classes is not None:
        label = TensorProto.STRING if served_labels(boosted.classes).dtype.kind == "U" else TensorProto.INT64
        outputs.insert(0, (names[0], label, [rows, boosted.targets] if boosted.several_labels else [rows]))
    graph = helper.make_graph(
        pieces.nodes,
        "boosted",
        [helper.make_tensor_value_info(spec.name, elem_type, [rows, boosted.features])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        pieces.constants,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
