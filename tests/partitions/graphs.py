"""Networks to cut, small enough to see through, with every shape of graph that real ones have."""

from itertools import pairwise
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ..networks import model

_FLOAT = TensorProto.FLOAT


def _random(*shape: int, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def mlp(*widths: int) -> ModelProto:
    """``y`` of rows ``x``: dense layers ``fc1``, ``fc2``… of those widths with a Relu between them."""
    nodes, weights, read = [], {}, "x"
    last = len(widths) - 1
    for k, (rows, columns) in enumerate(pairwise(widths), 1):
        weights |= {f"w{k}": _random(rows, columns, seed=k), f"b{k}": _random(columns, seed=90 + k)}
        made = "y" if k == last else f"h{k}"
        nodes.append(helper.make_node("Gemm", [read, f"w{k}", f"b{k}"], [made], name=f"fc{k}"))
        if k < last:
            nodes.append(helper.make_node("Relu", [made], [f"r{k}"]))
        read = f"r{k}"
    return model(nodes, [("x", _FLOAT, ["rows", widths[0]])], [("y", _FLOAT, ["rows", widths[-1]])], weights)


def residual() -> ModelProto:
    """Two blocks that add to what they read, an input that the last layer needs, two outputs, and a shared matrix."""
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["a"], name="first"),
        helper.make_node("Add", ["a", "bias"], ["b"]),
        helper.make_node("Tanh", ["b"], ["c"]),
        helper.make_node("Add", ["c", "x"], ["d"]),
        helper.make_node("MatMul", ["d", "shared"], ["e"], name="second"),
        helper.make_node("Mul", ["e", "scale"], ["f"]),
        helper.make_node("Add", ["f", "d"], ["g"]),
        helper.make_node("Concat", ["g", "extra"], ["h"], axis=1),
        helper.make_node("MatMul", ["h", "head"], ["y"], name="head"),
        helper.make_node("ReduceMean", ["d"], ["level"], axes=[1], keepdims=1),
    ]
    weights = {
        "shared": _random(16, 16, seed=1),
        "bias": _random(16, seed=2),
        "scale": np.array([0.5], np.float32),
        "head": _random(20, 8, seed=3),
    }
    inputs = [("x", _FLOAT, ["rows", 16]), ("extra", _FLOAT, ["rows", 4])]
    return model(nodes, inputs, [("y", _FLOAT, ["rows", 8]), ("level", _FLOAT, ["rows", 1])], weights)


def gated() -> ModelProto:
    """A gated pair as large language models have it: ``down(sigmoid(gate x) * up x)``, with a three-dimensional x."""
    nodes = [
        helper.make_node("MatMul", ["x", "gate"], ["g"], name="gate"),
        helper.make_node("MatMul", ["x", "up"], ["u"], name="up"),
        helper.make_node("Sigmoid", ["g"], ["s"]),
        helper.make_node("Mul", ["g", "s"], ["silu"]),
        helper.make_node("Mul", ["silu", "u"], ["m"]),
        helper.make_node("MatMul", ["m", "down"], ["d"], name="down"),
        helper.make_node("Add", ["d", "bias"], ["e"]),
        helper.make_node("Add", ["e", "x"], ["y"]),
    ]
    weights = {"gate": _random(8, 24, seed=1), "up": _random(8, 24, seed=2), "down": _random(24, 8, seed=3)}
    shape = ["rows", "length", 8]
    return model(nodes, [("x", _FLOAT, shape)], [("y", _FLOAT, shape)], weights | {"bias": _random(8, seed=4)})


def attention(*heads: int) -> ModelProto:
    """Attention with four heads over eight columns, added to what it reads. ``heads``: the reshape that parts them."""
    nodes = []
    for name, order in zip("qkv", ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        nodes += [
            helper.make_node("MatMul", ["x", f"w{name}"], [f"{name}1"], name=name),
            helper.make_node("Add", [f"{name}1", f"b{name}"], [f"{name}2"]),
            helper.make_node("Reshape", [f"{name}2", "heads"], [f"{name}3"]),
            helper.make_node("Transpose", [f"{name}3"], [f"{name}4"], perm=order),
        ]
    nodes += [
        helper.make_node("MatMul", ["q4", "k4"], ["scores"]),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["shares"]),
        helper.make_node("MatMul", ["shares", "v4"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "joined"], ["context"]),
        helper.make_node("MatMul", ["context", "wo"], ["out"], name="out"),
        helper.make_node("Add", ["out", "x"], ["y"]),
    ]
    weights = {f"w{name}": _random(8, 8, seed=k) for k, name in enumerate("qkvo")}
    weights |= {f"b{name}": _random(8, seed=10 + k) for k, name in enumerate("qkv")}
    weights |= {"heads": np.array(heads or (0, 0, 4, 2)), "joined": np.array((0, -1, 8)), "scale": np.float32(0.7)}
    shape = ["rows", "length", 8]
    return model(nodes, [("x", _FLOAT, shape)], [("y", _FLOAT, shape)], weights)


def images() -> ModelProto:
    """Two convolutions with normalization and pooling, flattened into a dense layer and a softmax."""
    ones = np.ones(8, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k1", "c1"], ["a"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "gain", "shift", "mean", "variance"], ["b"]),
        helper.make_node("Clip", ["b", "zero", "six"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["d", "k2", "c2"], ["e"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "w", "v"], ["h"], name="dense", transB=1, alpha=0.5, beta=2.0),
        helper.make_node("Softmax", ["h"], ["y"], axis=1),
    ]
    weights = {
        "k1": _random(8, 2, 3, 3, seed=1),
        "c1": _random(8, seed=2),
        "gain": ones + _random(8, seed=3),
        "shift": _random(8, seed=4),
        "mean": _random(8, seed=5),
        "variance": ones,
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "k2": _random(4, 8, 3, 3, seed=6),
        "c2": _random(4, seed=7),
        "w": _random(6, 64, seed=8),
        "v": _random(1, 6, seed=9),
    }
    return model(nodes, [("x", _FLOAT, ["rows", 2, 8, 8])], [("y", _FLOAT, ["rows", 6])], weights)


def branching() -> ModelProto:
    """Layers inside the branches of an ``If``, which read a tensor from around them; weights as Constant nodes."""

    def branch(name: str, seed: int) -> Any:
        weight = numpy_helper.from_array(_random(6, 6, seed=seed), f"{name}_w")
        return helper.make_graph(
            [helper.make_node("MatMul", ["around", f"{name}_w"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", _FLOAT, ["rows", 6])],
            [weight],
        )

    constant = numpy_helper.from_array(_random(6, 6, seed=3), "c")
    nodes = [
        helper.make_node("Constant", [], ["w0"], value=constant),
        helper.make_node("MatMul", ["x", "w0"], ["around"], name="before"),
        helper.make_node("ReduceSum", ["around"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["z"], then_branch=branch("yes", 4), else_branch=branch("no", 5)),
        helper.make_node("Transpose", ["w0"], ["turned"]),
        helper.make_node("MatMul", ["z", "turned"], ["y"], name="after"),
    ]
    weights = {"zero": np.array(0, np.float32)}
    return model(nodes, [("x", _FLOAT, ["rows", 6])], [("y", _FLOAT, ["rows", 6])], weights)
