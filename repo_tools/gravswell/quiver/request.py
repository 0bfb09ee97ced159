"""What a user asks to be exported, made into what the exporters are asked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gravswell.errors import InvalidInputError
from gravswell.quiver.manifest import Signature
from gravswell.quiver.signature import parse_shape
from gravswell.targets import DEFAULT_TARGET, target_of

if TYPE_CHECKING:
    from gravswell.quiver.exporters import ExportRequest, InputSpec

Shapes = Mapping[str, Sequence[int | None]]
"""Shape of each input by name; None for a dynamic dim."""

Samples = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""One batch by input name, or several."""


def export_request(
    model: Any,
    input_shapes: Shapes | None,
    output_names: Sequence[str] | None,
    *,
    stated: Signature | None,
    types: Mapping[str, str],
    samples: Samples | None,
    opset: int | None,
    target: str | None,
) -> "ExportRequest":
    """What to export. InvalidInputError for arguments that cannot be meant.

    :param stated: the tensors that the entry states already; what the user leaves out is taken from them.
    :param types: Triton types of inputs, where the user gave them.
    """
    from gravswell.quiver.exporters import ExportRequest  # noqa: PLC0415 - imports ONNX

    if isinstance(output_names, str):
        raise InvalidInputError(f"output_names must be a sequence of names: [{output_names!r}]")
    names = tuple(output_names) if output_names is not None else None
    if names is None and stated is not None and stated.outputs:
        names = tuple(record.name for record in stated.outputs)
    return ExportRequest(
        model=model,
        inputs=_inputs(input_shapes, stated, types),
        output_names=names,
        opset=opset,
        target=DEFAULT_TARGET if target is None else target_of(target),
        inferred=input_shapes is None and stated is not None and output_names is None,
        samples=batches_of(samples),
    )


def _inputs(
    shapes: Shapes | None, stated: Signature | None, types: Mapping[str, str]
) -> "tuple[InputSpec, ...] | None":
    from gravswell.quiver.exporters import InputSpec  # noqa: PLC0415 - imports ONNX

    if shapes is not None:
        known = {record.name: record.data_type for record in stated.inputs} if stated else {}
        if not shapes:
            raise InvalidInputError("input_shapes is empty: name at least one input, or leave it out")
        return tuple(
            InputSpec(name, types.get(name, known.get(name)), parse_shape(name, shape))
            for name, shape in shapes.items()
        )
    if stated is not None and stated.inputs:
        return tuple(
            replace(InputSpec.of(record), data_type=types.get(record.name, record.data_type))
            for record in stated.inputs
        )
    return None


def batches_of(given: Samples | None, argument: str = "sample_inputs") -> tuple[Mapping[str, Any], ...]:
    """The user's batches, none for None. InvalidInputError, naming the ``argument``, for what is no batch."""
    if given is None:
        return ()
    one = isinstance(given, Mapping) or hasattr(given, "columns")
    several = (given,) if one else given if isinstance(given, Sequence) else ()  # an array says no names
    samples = tuple(map(_columns_apart, several))
    if not samples or not all(isinstance(sample, Mapping) and sample for sample in samples):
        raise InvalidInputError(
            f'{argument} is a batch by input name, {{"x": array}}, a DataFrame, or a sequence of such'
        )
    return samples


def _columns_apart(sample: Any) -> Any:
    """A DataFrame as a batch: an input for each of its columns."""
    if not hasattr(sample, "columns"):
        return sample
    return {str(name): sample[[name]].to_numpy() for name in sample.columns}
