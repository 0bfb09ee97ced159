"""Keras models on TensorFlow: what they are called, what they take and give, and what is refused and why."""

import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import pytest
import tensorflow as tf
from keras import layers

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, NotFoundError, UnsupportedError, VerificationError
from gravswell.extras import install
from gravswell.quiver import exporters
from gravswell.quiver.golden import load_golden

from .keras_models import sequential
from .refusing import check_refusal
from .signatures import Signature, shapes

X = {"x": (None, 4)}


def subclassed(call: Callable[..., Any]) -> keras.Model:
    """A model with that ``call``; its first parameter is the model itself, which has a layer ``dense`` of 3."""

    class Given(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)

    Given.call = call
    return Given()


def branches(inputs: Any, outputs: Callable[[Any, Any], Any]) -> keras.Model:
    """A functional model of a float and an integer input, in the structures that are asked for."""
    a, b = keras.Input((4,), name="a"), keras.Input((3,), dtype="int32", name="b")
    joined = layers.Concatenate()([a, layers.Flatten()(layers.Embedding(10, 2)(b))])
    one, two = layers.Dense(1, name="one")(joined), layers.Dense(2, name="two")(joined)
    return keras.Model(inputs(a, b), outputs(one, two))


def normalized() -> keras.Model:
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).random((50, 4)) * 9)
    return sequential(layer, layers.Dense(2, name="y"))


def looking_up() -> keras.Model:
    colour = keras.Input((1,), dtype="string", name="colour")
    found = layers.StringLookup(vocabulary=["red", "green"])(colour)
    return keras.Model(colour, layers.Embedding(3, 2, name="y")(found))


def tokenizing() -> keras.Model:
    text = keras.Input((1,), dtype="string", name="text")
    return keras.Model(text, layers.TextVectorization(vocabulary=["red", "green"])(text))


def of_one_batch(call: Callable[..., Any], *batch: Any) -> keras.Model:
    """A subclassed model that has seen a batch, and so knows what it takes."""
    model = subclassed(call)
    model(*batch)
    return model


ROWS = np.zeros((2, 4), np.float32)
BOTH: Signature = {"a": ("TYPE_FP32", (-1, 4)), "b": ("TYPE_INT32", (-1, 3))}


@pytest.mark.parametrize(
    ("model", "arguments", "inputs", "outputs"),
    [
        pytest.param(
            lambda: sequential(
                layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3, name="y")
            ),
            {},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (-1, 3))},
            id="sequential",
        ),
        pytest.param(
            lambda: keras.Sequential([layers.Dense(3, name="y")]),
            {"input_shapes": X},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (-1, 3))},
            id="sequential-never-built",
        ),
        pytest.param(
            lambda: keras.Sequential([layers.Embedding(7, 3), layers.GlobalAveragePooling1D()]),
            {"input_shapes": {"ids": (None, None)}, "input_types": {"ids": "int64"}, "output_names": ["mean"]},
            {"ids": ("TYPE_INT64", (-1, -1))},
            {"mean": ("TYPE_FP32", (-1, 3))},
            id="sequential-of-integers-never-built",
        ),
        pytest.param(
            lambda: branches(lambda a, b: [b, a], lambda one, two: [two, one]),
            {"max_batch_size": 8},
            {"b": ("TYPE_INT32", (-1, 3)), "a": ("TYPE_FP32", (-1, 4))},
            {"two": ("TYPE_FP32", (-1, 2)), "one": ("TYPE_FP32", (-1, 1))},
            id="functional-in-its-own-order",
        ),
        pytest.param(
            lambda: branches(lambda a, b: {"b": b, "a": a}, lambda one, two: {"score": one, "kind": two}),
            {},
            BOTH,
            {"kind": ("TYPE_FP32", (-1, 2)), "score": ("TYPE_FP32", (-1, 1))},
            id="functional-of-dicts",
        ),
        pytest.param(
            lambda: branches(lambda a, b: [a, b], lambda one, two: [one, two]),
            {"input_shapes": {"rows": (None, 4), "ids": (None, 3)}, "output_names": ["p", "q"]},
            {"rows": ("TYPE_FP32", (-1, 4)), "ids": ("TYPE_INT32", (-1, 3))},
            {"p": ("TYPE_FP32", (-1, 1)), "q": ("TYPE_FP32", (-1, 2))},
            id="names-of-the-user-s-own",
        ),
        pytest.param(
            lambda: keras.Model(x := keras.Input((4,), name="x"), [x, layers.Dense(2, name="y")(x)]),
            {},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"output_0": ("TYPE_FP32", (-1, 4)), "output_1": ("TYPE_FP32", (-1, 2))},
            id="the-input-itself",
        ),
        pytest.param(
            lambda: sequential(
                layers.Rescaling(1 / 255),
                layers.Conv2D(4, 3, strides=2, activation="relu"),
                layers.MaxPooling2D(),
                layers.GlobalAveragePooling2D(name="y"),
                shape=(None, None, 3),
            ),
            {},
            {"x": ("TYPE_FP32", (-1, -1, -1, 3))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="images-of-any-size",
        ),
        pytest.param(
            lambda: sequential(layers.GRU(2, name="y"), shape=(None, 4)),
            {},
            {"x": ("TYPE_FP32", (-1, -1, 4))},
            {"y": ("TYPE_FP32", (-1, 2))},
            id="sequences-of-any-length",
        ),
        pytest.param(
            lambda: sequential(
                layers.Embedding(10, 4, mask_zero=True),
                layers.Bidirectional(layers.LSTM(2), name="y"),
                shape=(6,),
                dtype="int32",
            ),
            {},
            {"x": ("TYPE_INT32", (-1, 6))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="masked-tokens-both-ways",
        ),
        pytest.param(
            normalized, {}, {"x": ("TYPE_FP32", (-1, 4))}, {"y": ("TYPE_FP32", (-1, 2))}, id="preprocessing-inside"
        ),
        pytest.param(
            looking_up,
            {},
            {"colour": ("TYPE_STRING", (-1, 1))},
            {"y": ("TYPE_FP32", (-1, 1, 2))},
            id="strings-looked-up",
        ),
        pytest.param(
            lambda: sequential(
                layers.Dense(4, dtype="mixed_float16"), layers.Softmax(dtype="float32", name="y"), shape=(8,)
            ),
            {},
            {"x": ("TYPE_FP32", (-1, 8))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="mixed-precision",
        ),
        pytest.param(
            lambda: sequential(
                layers.Dense(8, activation="gelu", name="g"), layers.Dense(2, dtype="mixed_float16", activation="gelu")
            ),
            {"output_names": ["y"]},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP16", (-1, 2))},
            id="gelu",
        ),
        pytest.param(
            lambda: subclassed(lambda self, x: {"y": self.dense(x), "total": keras.ops.sum(x, -1)}),
            {"input_shapes": X},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"total": ("TYPE_FP32", (-1,)), "y": ("TYPE_FP32", (-1, 3))},
            id="subclassed-never-built",
        ),
        pytest.param(
            lambda: of_one_batch(lambda self, rows: self.dense(rows), ROWS),
            {"output_names": ["y"]},
            {"rows": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (-1, 3))},
            id="subclassed-that-saw-a-batch",
        ),
        pytest.param(
            lambda: subclassed(lambda self, rows, weight, training=False: self.dense(rows) * weight),
            {"input_shapes": {"weight": (None, 3), "rows": (None, 4)}, "output_names": ["y"]},
            {"weight": ("TYPE_FP32", (-1, 3)), "rows": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (-1, 3))},
            id="subclassed-of-two-tensors",
        ),
        pytest.param(
            lambda: subclassed(lambda self, x, mask: self.dense(x) * mask),
            {"input_shapes": {"x": (None, 4), "mask": (None, 3)}, "output_names": ["y"]},
            {"x": ("TYPE_FP32", (-1, 4)), "mask": ("TYPE_FP32", (-1, 3))},
            {"y": ("TYPE_FP32", (-1, 3))},
            id="subclassed-of-a-mask",
        ),
        pytest.param(
            lambda: subclassed(lambda self, inputs: self.dense(inputs["a"]) * inputs["b"]),
            {"input_shapes": {"a": (None, 4), "b": (None, 3)}, "output_names": ["y"]},
            {"a": ("TYPE_FP32", (-1, 4)), "b": ("TYPE_FP32", (-1, 3))},
            {"y": ("TYPE_FP32", (-1, 3))},
            id="subclassed-of-a-dict",
        ),
        pytest.param(
            lambda: of_one_batch(lambda self, pair: self.dense(pair[0]) * pair[1], [ROWS, ROWS[:, :3]]),
            {"output_names": ["y"]},
            {"pair_0": ("TYPE_FP32", (-1, 4)), "pair_1": ("TYPE_FP32", (-1, 3))},
            {"y": ("TYPE_FP32", (-1, 3))},
            id="subclassed-of-a-list",
        ),
    ],
)
def test_exports(
    entry: qv.Entry,
    model: Callable[[], keras.Model],
    arguments: dict[str, Any],
    inputs: Signature,
    outputs: Signature,
) -> None:
    entry.export_version(model(), **arguments)
    assert list(shapes(entry.inputs).items()) == list(inputs.items())
    assert list(shapes(entry.outputs).items()) == list(outputs.items())
    record = entry.versions[-1].manifest.verification
    assert record.reference == f"keras {keras.__version__} on tensorflow {tf.__version__}"
    assert {1, 2, 5} < set(record.batch_sizes)


@pytest.mark.parametrize(
    ("model", "arguments", "error", "fact"),
    [
        pytest.param(
            lambda: keras.Sequential([layers.Dense(3)]), {}, InvalidInputError, "give their shapes", id="never-built"
        ),
        pytest.param(
            lambda: of_one_batch(lambda self, a, b: self.dense(a) * b, ROWS, ROWS[:, :3]),
            {},
            InvalidInputError,
            "give their shapes",
            id="of-two-tensors-that-saw-a-batch",
        ),
        pytest.param(
            lambda: sequential(layers.Dense(3)),
            {"input_shapes": {"x": (None, 5)}},
            InvalidInputError,
            r"'x' is \[-1, 4\] in the model, not \[-1, 5\]",
            id="another-shape",
        ),
        pytest.param(
            lambda: sequential(layers.Dense(3)),
            {"input_shapes": {"a": (None, 4), "b": (None, 4)}},
            InvalidInputError,
            "takes x, not a, b",
            id="other-inputs",
        ),
        pytest.param(
            lambda: branches(lambda a, b: [a, b], lambda one, two: [one, two]),
            {"input_shapes": {"a": (None, 4)}},
            InvalidInputError,
            "takes b too",
            id="one-of-two-inputs",
        ),
        pytest.param(
            lambda: sequential(layers.Dense(3)),
            {"output_names": ["a", "b"]},
            InvalidInputError,
            "2 output_names",
            id="other-outputs",
        ),
        pytest.param(
            lambda: sequential(layers.Dense(3)),
            {"output_names": ["x"]},
            InvalidInputError,
            "a name of its own",
            id="an-output-called-as-the-input",
        ),
        pytest.param(
            lambda: sequential(layers.Dense(3)), {"opset": 21}, InvalidInputError, "opsets up to 18", id="opset"
        ),
        pytest.param(
            lambda: of_one_batch(lambda self, x: tf.strings.regex_replace(x, "a", "b"), tf.constant([["a"]])),
            {"input_shapes": {"x": (None, 1)}, "input_types": {"x": "string"}},
            ExportError,
            "no ONNX operator for StaticRegexReplace",
            id="no-operator",
        ),
        pytest.param(tokenizing, {}, ExportError, "takes texts apart.*the function of a pipeline", id="no-tokens"),
        pytest.param(
            lambda: sequential(layers.Dense(3, dtype="mixed_bfloat16", name="wide")),
            {},
            ExportError,
            "wide of Sequential compute in bfloat16|output wide is bfloat16",
            id="bfloat16",
        ),
        pytest.param(
            lambda: sequential(layers.LSTM(3, stateful=True, name="memory"), shape=(5, 3), batch_size=2),
            {"input_shapes": {"x": (2, 5, 3)}},
            ExportError,
            "memory of Sequential are stateful",
            id="stateful",
        ),
        pytest.param(
            lambda: subclassed(lambda self, x: x * 2 if keras.ops.sum(x) > 0 else x),
            {"input_shapes": X},
            ExportError,
            "works on values only.*keras.ops.cond",
            id="a-branch-on-values",
        ),
        pytest.param(
            lambda: subclassed(lambda self, x: x if x.shape[0] == 2 else x * 2),
            {"input_shapes": X},
            VerificationError,
            "at a batch of 2",
            id="a-branch-on-the-batch",
        ),
        pytest.param(
            lambda: subclassed(lambda self, x: keras.ops.reshape(x, (2, -1))),
            {"input_shapes": X, "max_batch_size": 8},
            ExportError,
            "lead with the batch",
            id="an-output-without-the-batch",
        ),
        pytest.param(
            lambda: subclassed(lambda self, x: x - keras.ops.mean(x, 0, keepdims=True)),
            {"input_shapes": X, "max_batch_size": 8},
            ExportError,
            "depends on the other rows",
            id="rows-that-mix",
        ),
        pytest.param(
            lambda: subclassed(lambda self, x: (x, 3)), {"input_shapes": X}, ExportError, "a int", id="a-number-beside"
        ),
        pytest.param(
            lambda: subclassed(lambda self, x: None), {"input_shapes": X}, ExportError, "no tensor", id="nothing"
        ),
        pytest.param(
            lambda: sequential(layers.Dense(3, kernel_initializer=keras.initializers.Constant(float("nan")), name="y")),
            {},
            ExportError,
            "output y is NaN.*y/kernel of the model hold NaN",
            id="nan-throughout",
        ),
        pytest.param(lambda: "absent.keras", {}, NotFoundError, "no file absent.keras", id="no-file"),
    ],
)
def test_refuses(
    entry: qv.Entry,
    root: Path,
    model: Callable[[], Any],
    arguments: dict[str, Any],
    error: type[Exception],
    fact: str,
) -> None:
    check_refusal(entry, root, model(), arguments, error, fact)


def test_an_optional_input_is_left_out(entry: qv.Entry) -> None:
    class Scaled(layers.Layer):
        def call(self, x: Any, factor: Any = None) -> Any:
            return x if factor is None else x * factor

    x, factor = keras.Input((4,), name="x"), keras.Input((1,), name="factor", optional=True)
    entry.export_version(keras.Model([x, factor], Scaled(name="y")(x, factor)), input_shapes=X)
    assert shapes(entry.inputs) == {"x": ("TYPE_FP32", (-1, 4))}


def test_texts_are_proved_with_those_that_the_model_knows(entry: qv.Entry) -> None:
    path = entry.export_version(looking_up())
    proved = {
        text for sample in load_golden(Path(path).parent / ".golden.npz") for text in sample.inputs["colour"].flat
    }
    assert {"red", "green", "?"} <= proved


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_left_as_it_was(entry: qv.Entry, fails: bool) -> None:
    class Counting(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.last = 0, None
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x: Any) -> Any:
            self.calls, self.last = self.calls + 1, x
            self.seen.assign_add(1.0)
            return x * 2

    counting = Counting()
    model = sequential(layers.Dense(4), layers.BatchNormalization(), counting, layers.Dropout(0.5), layers.Dense(2))
    counting.calls, counting.last = 0, None
    counting.seen.assign(0.0)
    weights = [v.numpy() for v in model.variables]

    def chance() -> tuple[float, float, float, float]:
        return float(tf.random.uniform(())), float(keras.random.uniform(())), float(np.random.rand()), random.random()

    def seed() -> None:
        keras.utils.set_random_seed(1)

    seed()
    expected = chance()
    seed()
    if fails:
        with pytest.raises(InvalidInputError):
            entry.export_version(model, output_names=["y", "z"])
    else:
        entry.export_version(model)
    assert chance() == expected
    assert (counting.calls, counting.last, float(counting.seen)) == (0, None, 0.0)
    assert all(np.array_equal(v.numpy(), before) for v, before in zip(model.variables, weights, strict=True))
    assert model.layers[0].trainable
    assert tf.executing_eagerly()


def test_dropout_is_exported_in_its_inference_form(entry: qv.Entry) -> None:
    model = sequential(layers.Dropout(0.9), layers.Dense(2, name="y"))
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    (y,) = ort.InferenceSession(entry.export_version(model)).run(None, {"x": x})
    np.testing.assert_allclose(y, model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def test_nothing_is_written_to_the_terminal(entry: qv.Entry, capfd: pytest.CaptureFixture[str]) -> None:
    entry.export_version(sequential(layers.Dense(2)))
    assert capfd.readouterr() == ("", "")


def test_what_keras_needs_is_named(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sequential(layers.Dense(2))
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.delitem(sys.modules, "gravswell.quiver.exporters.keras.on_tensorflow", raising=False)
    monkeypatch.delattr(exporters.keras, "on_tensorflow", raising=False)
    with pytest.raises(UnsupportedError, match=re.escape(f"needs tf2onnx: {install('keras')}")):
        entry.export_version(model)


def test_a_backend_without_a_converter_is_named(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sequential(layers.Dense(2))
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UnsupportedError, match=r"runs on jax here.*KERAS_BACKEND=tensorflow"):
        entry.export_version(model)
