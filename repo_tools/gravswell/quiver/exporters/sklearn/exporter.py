"""A fitted scikit-learn estimator or pipeline, converted by skl2onnx."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import onnx
import onnx.shape_inference
from onnx import helper

from gravswell.errors import ExportError, InvalidInputError, UnsupportedError, VerificationError
from gravswell.extras import install
from gravswell.quiver.exporters.base import (
    Exported,
    Exporter,
    ExportRequest,
    Inputs,
    InputSpec,
    class_names,
    described,
)
from gravswell.quiver.exporters.sklearn import boosting
from gravswell.quiver.exporters.sklearn.answers import named, own_answer, settled
from gravswell.quiver.exporters.sklearn.calibration import calibrated_by_scores, interpolated
from gravswell.quiver.exporters.sklearn.frame import (
    as_fitted,
    as_frame,
    column_specs,
    fitted_columns,
    require_known_texts,
    takes_columns,
    text_options,
    vectorizers,
)
from gravswell.quiver.exporters.sklearn.passing import without_passthrough
from gravswell.quiver.exporters.sklearn.rounding import too_coarse, width_of_answers
from gravswell.quiver.exporters.sklearn.scale import first_step, last_step, own_batches
from gravswell.quiver.exporters.sklearn.voting import convertible
from gravswell.quiver.golden import Array

_OPSET = 18
"""Well below the servers' limit, and known to every converter."""

_ML_OPSET = 3
"""Of ``ai.onnx.ml``, likewise: the newest that skl2onnx's converters are written for."""

_SEVERAL_TYPES = "fit it on a DataFrame, of which each column becomes an input"


class SklearnExporter(Exporter):
    """One input of shape ``(None, n_features)``, or one for each column of a DataFrame that a ``ColumnTransformer``
    was fitted on, or one column of texts; plain tensors out (no ``ZipMap``).
    """

    name = "scikit-learn estimator"
    hint = f"; a pipeline over columns of several types takes more than one tensor: {_SEVERAL_TYPES}"

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        return "sklearn.base.BaseEstimator" in class_names(model)

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`. Without shapes: ``x``, as wide as the estimator was fitted."""
        asked = [spec.name for spec in request.inputs or ()]
        if takes_columns(request.model, asked or fitted_columns(request.model) or []):
            return column_specs(request)
        if _takes_texts(request.model) and len(asked) < 2:
            return (InputSpec("".join(asked) or "x", "TYPE_STRING", (None, 1)),)
        features = next(
            (n for m in (request.model, first_step(request.model)) if (n := getattr(m, "n_features_in_", None))), None
        )
        if request.inputs is None:
            if features is None:
                raise InvalidInputError(
                    f"{type(request.model).__name__} does not know its number of features: fit it first, "
                    f'or give input_shapes={{"x": (None, n_features)}}'
                )
            return (InputSpec("x", "TYPE_FP32", (None, int(features))),)
        if len(request.inputs) != 1:
            names = ", ".join(spec.name for spec in request.inputs)
            raise ExportError(
                f"this estimator takes one input tensor of one type, not {names}: stack its columns into one; where "
                f"they are of several types, begin with a ColumnTransformer and {_SEVERAL_TYPES}"
            )
        spec = request.inputs[0]
        if len(spec.shape) != 2 or (features is not None and spec.shape[1] != features):
            raise InvalidInputError(
                f"input {spec.name!r} has shape {spec.shape}; the estimator was fitted on (None, {features})"
            )
        return (InputSpec(spec.name, spec.data_type or "TYPE_FP32", spec.shape),)

    def own_batches(self, request: ExportRequest) -> list[Inputs] | None:
        """See :meth:`Exporter.own_batches`."""
        specs, columns = self.inputs(request), None
        if _takes_texts(request.model):
            require_known_texts(request.model, specs)
        if takes_columns(request.model, [spec.name for spec in specs]):
            require_known_texts(request.model, specs)
            fitted = fitted_columns(request.model) or []
            columns = [fitted.index(spec.name) for spec in specs]
        feed = _feed(request.model)
        return own_batches(request.model, specs, lambda batch: settled(request.model, feed(batch)), columns)

    @contextmanager
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
        try:
            import skl2onnx  # noqa: PLC0415 - a framework is imported only when it is used
            import sklearn  # noqa: PLC0415 - as above
        except ImportError as error:
            raise UnsupportedError(f"exporting scikit-learn needs {error.name}: {install('sklearn')}") from None
        del batches  # nothing is traced
        specs = self.inputs(request)
        model = request.model
        opset = {"": request.opset_for(_OPSET), "ai.onnx.ml": request.ml_opset_for(_ML_OPSET)}
        try:
            with warnings.catch_warnings(), convertible(model), without_passthrough(model), _converters():
                warnings.simplefilter("ignore")  # the converters' notes to their own authors
                proto = _convert(model, _initial_types(model, specs), opset)
        except ExportError:
            raise
        except Exception as error:  # converters raise what they like
            raise ExportError(
                f"skl2onnx {skl2onnx.__version__} cannot convert {type(model).__name__}: {described(error)}"
            ) from error
        _restore_names(proto, specs, fitted_columns(model))
        if len({spec.data_type for spec in specs}) > 1:
            _retype_outputs(proto)
        own = [output.name for output in proto.graph.output]
        _rename(proto, own, request.output_names)
        try:
            with self.answering(request) as answer:
                yield Exported(
                    proto=proto,
                    source=None,
                    converted=True,
                    exporter=f"skl2onnx {skl2onnx.__version__}",
                    framework=f"scikit-learn {sklearn.__version__}",
                    reference=lambda inputs: named(answer(inputs), own, proto),
                    computes_in=width_of_answers(proto),
                )
        except VerificationError as error:
            raise VerificationError(f"{error}{too_coarse(model, specs)}") from None

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Any]]:
        """See :meth:`Exporter.answering`. A batch gives a function from the converter's output name to its values."""
        model = request.model
        method = getattr(model, "predict", None) or getattr(model, "transform", None)
        if not callable(method):
            raise ExportError(f"{type(model).__name__} has neither predict nor transform: it cannot be served")

        feed = _feed(model)

        def answer(inputs: Inputs) -> Callable[[str], Array]:
            x = feed(inputs)
            method(x)  # fails here, not later, on what the estimator does not take
            return lambda output: own_answer(model, output, x)

        yield answer


@contextmanager
def _converters() -> Iterator[None]:
    """While the context is open skl2onnx has our converters, where its own are missing or wrong."""
    with boosting.registered(), interpolated():
        yield


def _takes_texts(model: Any) -> bool:
    """Whether it was fitted on a list of texts."""
    return hasattr(first_step(model), "vocabulary_")


def _feed(model: Any) -> Callable[[Inputs], Any]:
    """How a batch is put together for the estimator."""

    def fed(inputs: Inputs) -> Any:
        if takes_columns(model, list(inputs)):
            return as_frame(inputs)
        (x,) = inputs.values()
        return as_fitted(x.ravel() if _takes_texts(model) else x)

    return fed


def _initial_types(model: Any, specs: tuple[InputSpec, ...]) -> list[tuple[str, Any]]:
    """What the converter is told: of columns all, in their order, for a ColumnTransformer may choose by position."""
    given = {spec.name: spec for spec in specs}
    if not takes_columns(model, list(given)):
        return [(name, _onnx_type(spec)) for name, spec in given.items()]
    columns = fitted_columns(model) or []
    return [(name, _onnx_type(given.get(name, InputSpec(name, "TYPE_FP32", (None, 1))))) for name in columns]


def _restore_names(proto: Any, specs: tuple[InputSpec, ...], columns: list[str] | None) -> None:
    """Give inputs the names that were asked for, which the converter makes identifiers of, and drop unused columns."""
    wanted = {spec.name for spec in specs}
    given = columns if columns is not None and len(columns) == len(proto.graph.input) else [s.name for s in specs]
    for name, node in zip(given, list(proto.graph.input), strict=True):
        if name not in wanted:
            proto.graph.input.remove(node)
        elif node.name != name:
            proto.graph.node.insert(0, helper.make_node("Identity", [name], [node.name]))
            node.name = name


def _retype_outputs(proto: Any) -> None:
    """Declare outputs in the types that they are computed in: the converter goes by one of several inputs."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for output in bare.graph.output:
        output.type.tensor_type.elem_type = onnx.TensorProto.UNDEFINED
    inferred = {o.name: o.type.tensor_type.elem_type for o in onnx.shape_inference.infer_shapes(bare).graph.output}
    for output in proto.graph.output:
        output.type.tensor_type.elem_type = inferred.get(output.name) or output.type.tensor_type.elem_type


def _onnx_type(spec: InputSpec) -> Any:
    from skl2onnx.common import data_types  # noqa: PLC0415 - a framework is imported only when it is used

    kinds = {
        "TYPE_FP32": data_types.FloatTensorType,
        "TYPE_FP64": data_types.DoubleTensorType,
        "TYPE_INT64": data_types.Int64TensorType,
        "TYPE_STRING": data_types.StringTensorType,
        "TYPE_BOOL": data_types.BooleanTensorType,
    }
    if spec.data_type not in kinds:
        raise InvalidInputError(f"input {spec.name!r} is {spec.data_type}: skl2onnx takes one of {', '.join(kinds)}")
    return kinds[spec.data_type](list(spec.shape))


def _convert(model: Any, initial_types: list[tuple[str, Any]], opset: dict[str, int]) -> Any:
    import skl2onnx  # noqa: PLC0415 - a framework is imported only when it is used

    common: dict[int, dict[str, Any]] = {id(step): text_options(step) for step in vectorizers(model)}
    common |= {id(step): {"raw_scores": True} for step in calibrated_by_scores(model)}
    classifier = last_step(model)
    if hasattr(classifier, "classes_"):
        for own in _options(classifier):
            options = {**common, id(classifier): own}
            with suppress(NameError):  # how skl2onnx says that it knows no such option for this classifier
                return skl2onnx.to_onnx(model, initial_types=initial_types, options=options, target_opset=opset)
    return skl2onnx.to_onnx(model, initial_types=initial_types, options=common or None, target_opset=opset)


def _options(classifier: Any) -> tuple[dict[str, bool], ...]:
    """Those that are asked for, in order of preference: plain tensors, and scores with a column for each class."""
    if callable(getattr(classifier, "predict_proba", None)):
        return ({"zipmap": False},)
    return ({"zipmap": False, "raw_scores": True}, {"raw_scores": True}, {"zipmap": False})


def _rename(proto: Any, own: list[str], wanted: tuple[str, ...] | None) -> None:
    if wanted is None:
        return
    if len(wanted) != len(own):
        raise InvalidInputError(
            f"{len(wanted)} output_names ({', '.join(wanted)}) for the {len(own)} outputs {', '.join(own)}: name each"
        )
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    for output, name in zip(own, wanted, strict=True):
        if output == name:
            continue
        if name in taken:
            raise InvalidInputError(f"{name!r} is taken by another tensor of the graph: choose another output name")
        proto.graph.node.append(helper.make_node("Identity", [output], [name]))
        next(o for o in proto.graph.output if o.name == output).name = name
