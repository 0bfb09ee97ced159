"""The work of :mod:`~gravswell.quiver.exporters.keras.exporter` on TensorFlow, apart because it imports that."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tf2onnx import optimizer, tf_loader, tfonnx
from tf2onnx.handler import tf_op
from tf2onnx.utils import make_name, map_onnx_to_numpy_type

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.datatypes import numpy_type
from gravswell.quiver.exporters.base import ExportRequest, Inputs, InputSpec, described
from gravswell.quiver.exporters.graph import graphs
from gravswell.quiver.exporters.keras.calling import Call, layers_of
from gravswell.quiver.exporters.keras.graph import canonical
from gravswell.quiver.exporters.keras.noise import quiet
from gravswell.quiver.golden import Array

EXPORTER = f"tf2onnx {tf2onnx.__version__}"

FRAMEWORK = f"tensorflow {tf.__version__}"

_OPSET = 18
"""The newest that tf2onnx writes; the servers take up to 21."""


_Call = Callable[[Mapping[str, Any]], Sequence[tuple[str, Any]]]
"""From named tensors to named ones."""


def answer(call: _Call, inputs: Inputs) -> list[tuple[str, Array]]:
    """What the model returns for a batch: every tensor, with its name."""
    named = call({name: tf.convert_to_tensor(array) for name, array in inputs.items()})
    return [(name, _as_array(name, value)) for name, value in named]


def _as_array(name: str, value: Any) -> Array:
    if not isinstance(value, tf.Tensor):
        raise ExportError(
            f"output {name} is a {type(value).__name__}: only dense tensors can be served; have the model return those"
        )
    if value.dtype.is_complex:
        raise ExportError(f"output {name} is complex: return its real and imaginary parts as two tensors")
    if value.dtype == tf.bfloat16:
        raise ExportError(f"output {name} is bfloat16, which no numpy array holds: return it as float32")
    array: Array = np.asarray(value)
    return np.char.decode(array.astype(np.bytes_), "utf-8", "replace") if value.dtype == tf.string else array


def leave_gpus() -> None:
    """Keep TensorFlow, which nobody uses yet, off the GPUs: it would take all of each one's memory."""
    tf.config.set_visible_devices([], "GPU")


def load(path: Path) -> Any:
    """A SavedModel. Raises whatever TensorFlow raises."""
    return tf.saved_model.load(str(path))


def export(request: ExportRequest, call: Call, specs: Sequence[InputSpec], outputs: Sequence[str]) -> Any:
    """The model as a ``ModelProto``. ExportError names the operators that have no counterpart in ONNX."""
    model = type(request.model).__name__
    brain = [layer.name for layer in layers_of(request.model) if layer.compute_dtype == "bfloat16"]
    if brain:
        raise ExportError(
            f"{', '.join(brain[:3])}{' and others' * (len(brain) > 3)} of {model} compute in bfloat16, which ONNX "
            f"Runtime does not on CPUs: set their dtype policy to float32 or mixed_float16"
        )
    keeping = [layer.name for layer in layers_of(request.model) if getattr(layer, "stateful", False)]
    if keeping:
        raise ExportError(
            f"{', '.join(keeping)} of {model} are stateful: a server's instances share no state between requests; "
            f"return the state, and take it as an input (initial_state)"
        )
    texts = [layer.name for layer in layers_of(request.model) if type(layer).__name__ == "TextVectorization"]
    if texts:
        raise ExportError(
            f"{', '.join(texts)} of {model} takes texts apart, for which ONNX has no operator: export the model behind "
            f"it, which takes the tokens' numbers, and make those in the client, or in the function of a pipeline"
        )
    return converted(request, request.model, call, specs=specs, outputs=outputs, told=model)


def converted(
    request: ExportRequest, root: Any, call: _Call, *, specs: Sequence[InputSpec], outputs: Sequence[str], told: str
) -> Any:
    """What ``call`` computes as a ``ModelProto``; ``root`` holds its variables, ``told`` is what messages call it."""
    opset = request.opset_for(_OPSET)
    if opset > _OPSET:
        raise InvalidInputError(f"{EXPORTER} writes opsets up to {_OPSET}: leave opset={opset} out")
    signature = [
        tf.TensorSpec(spec.shape, _tensorflow_type(spec), name=f"input_{k:04}") for k, spec in enumerate(specs)
    ]

    def served(*tensors: Any) -> dict[str, Any]:
        named = call({spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)})
        return {f"output_{k:04}": tf.identity(tensor) for k, (_, tensor) in enumerate(named)}

    try:
        with quiet():
            function = tf.function(served, input_signature=signature, autograph=False).get_concrete_function()
    except Exception as error:
        raise ExportError(
            f"{told} works on values only, and TensorFlow cannot make a graph of it ({described(error)}): choose "
            f"between tensors with keras.ops.where, between computations with keras.ops.cond"
        ) from error
    try:
        with quiet():
            proto, names = _converted(root, opset, function, [spec.name for spec in specs], outputs)
    except Exception as error:
        raise ExportError(f"{EXPORTER} cannot convert {told}: {described(error)}") from error
    missing = sorted({node.op_type for graph in graphs(proto) for node in graph.node if not _is_known(node)})
    if missing:
        raise ExportError(
            f"{EXPORTER} has no ONNX operator for {', '.join(missing)} of {told}: do that step outside of the model, "
            f"or with other layers"
        )
    return canonical(proto, names)


def _converted(
    root: Any, opset: int, function: Any, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[Any, dict[str, str]]:
    """The function as a ``ModelProto``, and the user's names of its inputs and outputs.

    Not by tf2onnx's own ``from_function``, which takes constants that a layer holds for inputs, and no lookup tables.
    """
    taken = [tensor.name for tensor in function.inputs[: len(inputs)]]  # then come what it captured
    made = [tensor.name for tensor in function.outputs]
    with tf.device("/cpu:0"):
        frozen, tables = tf_loader.from_trackable(root, function, taken, made, large_model=False)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            converted = tfonnx.process_tf_graph(
                graph,
                opset=opset,
                input_names=taken,
                output_names=made,
                initialized_tables=tables,
                continue_on_error=True,  # what it does not know stays in the graph, to be named
            )
            proto = optimizer.optimize_graph(converted).make_model("keras")
    return proto, dict(zip((*taken, *made), (*inputs, *outputs), strict=True))


@tf_op("Erfc")
class _Erfc:
    """1 - erf(x), which is what ``gelu`` is made of and tf2onnx has no operator for."""

    @classmethod
    def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
        """Put ONNX's operators in the place of ``node``."""
        (x,), outputs = node.input, node.output
        shapes, dtypes = node.output_shapes, node.output_dtypes
        ctx.remove_node(node.name)
        one = ctx.make_const(make_name(node.name), np.ones((), map_onnx_to_numpy_type(dtypes[0])))
        erf = ctx.make_node("Erf", [x], shapes=shapes, dtypes=dtypes)
        ctx.make_node(
            "Sub", [one.output[0], erf.output[0]], outputs=outputs, name=node.name, shapes=shapes, dtypes=dtypes
        )


def _tensorflow_type(spec: InputSpec) -> Any:
    dtype = numpy_type(spec.data_type or "TYPE_FP32")
    return tf.string if dtype.kind == "U" else tf.as_dtype(dtype)


def _is_known(node: Any) -> bool:
    """Whether it is an operator of ONNX: those that tf2onnx does not know it leaves as they are in TensorFlow."""
    return onnx.defs.has(node.op_type, node.domain)


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Afterwards everything is as it was: attributes, what a call changes in variables, and random states.

    A model that was never built stays built: it is then another object than before, as after any other first call.
    """
    kept = [(layer, dict(vars(layer))) for layer in layers_of(model) if layer.built]
    trained = {id(variable) for variable in model.trainable_variables}
    values = [(v, tf.convert_to_tensor(v.value)) for v in model.variables if id(v) not in trained]
    cudnn = [layer for layer in layers_of(model) if getattr(layer, "use_cudnn", False)]
    states = random.getstate(), np.random.get_state()  # the global one is what must be given back
    try:
        for layer in cudnn:
            layer.use_cudnn = False  # an operator of its own, which ONNX has no counterpart of
        yield
    finally:
        for layer, attributes in kept:
            own = vars(layer)
            own.clear()
            own.update(attributes)
        for variable, value in values:
            if not np.array_equal(variable.numpy(), value.numpy()):
                variable.assign(value)
        random.setstate(states[0])
        np.random.set_state(states[1])
