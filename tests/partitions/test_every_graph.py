"""Graphs drawn at random: cut in any way, they answer as the whole, or the error says what cannot be divided."""

from typing import Any, get_args

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, checker, helper

from gravswell.errors import InvalidInputError
from gravswell.partitions import Partition, partition
from gravswell.partitions.records import By
from gravswell.quiver.exporters.proof import cpu_session, run
from gravswell.quiver.golden import compare

from ..networks import model

WIDTHS = (4, 8, 12)

UNARY = ("Relu", "Tanh", "Neg", "Identity", "Softmax", "Sigmoid")


@st.composite
def graphs(draw: st.DrawFn) -> ModelProto:
    """Up to twelve nodes over rows: products with matrices, sums and products of any two tensors, rearrangements."""
    tensors: dict[str, int] = {"x": draw(st.sampled_from(WIDTHS)), "z": draw(st.sampled_from(WIDTHS))}
    inputs = [(name, TensorProto.FLOAT, ["rows", width]) for name, width in tensors.items()]
    weights: dict[str, Any] = {}
    nodes = []

    def weight(*shape: int) -> str:
        name = f"w{len(weights)}"
        scale = 1 / np.sqrt(shape[0]) if len(shape) > 1 else 1.0
        random = np.random.default_rng(len(weights)).standard_normal(shape)
        weights[name] = (random * scale).astype(np.float32)
        return name

    for k in range(draw(st.integers(2, 12))):
        read = draw(st.sampled_from(list(tensors)))
        width, out = tensors[read], draw(st.sampled_from(WIDTHS))
        alike = [name for name, size in tensors.items() if size == width]
        kind = draw(st.sampled_from(("MatMul", "Gemm", "Gemm", "unary", "unary", "binary", "bias", "Concat", "Slice")))
        made = f"t{k}"
        if kind == "MatMul":
            nodes.append(helper.make_node("MatMul", [read, weight(width, out)], [made], name=f"n{k}"))
        elif kind == "Gemm":
            turned = draw(st.booleans())
            shape = (out, width) if turned else (width, out)
            bias = [weight(out)] if draw(st.booleans()) else []
            how = {"transB": int(turned), "alpha": 0.5, "beta": 2.0}
            nodes.append(helper.make_node("Gemm", [read, weight(*shape), *bias], [made], name=f"n{k}", **how))
        elif kind == "unary":
            operator, out = draw(st.sampled_from(UNARY)), width
            nodes.append(helper.make_node(operator, [read], [made]))
        elif kind == "binary":
            operator, other, out = draw(st.sampled_from(("Add", "Mul"))), draw(st.sampled_from(alike)), width
            nodes.append(helper.make_node(operator, [read, other], [made]))
        elif kind == "bias":
            out = width
            nodes.append(helper.make_node("Add", [weight(draw(st.sampled_from((1, width)))), read], [made]))
        elif kind == "Concat":
            other = draw(st.sampled_from(list(tensors)))
            out = width + tensors[other]
            if out > max(WIDTHS):
                nodes.append(helper.make_node("Add", [read, read], [made]))
                out = width
            else:
                nodes.append(helper.make_node("Concat", [read, other], [made], axis=1))
        else:
            out = width // 2 if width > 4 else width
            weights[f"b{k}"], weights[f"e{k}"] = np.array([0], np.int64), np.array([out], np.int64)
            weights["axis"] = np.array([-1], np.int64)
            nodes.append(helper.make_node("Slice", [read, f"b{k}", f"e{k}", "axis"], [made]))
        tensors[made] = out
    names = draw(st.lists(st.sampled_from(list(tensors)[2:]), min_size=1, max_size=3, unique=True))
    outputs = [(name, TensorProto.FLOAT, ["rows", tensors[name]]) for name in names]
    return model(nodes, inputs, outputs, weights)


SIZES = (4, 8)


@st.composite
def shaped_graphs(draw: st.DrawFn) -> ModelProto:
    """Up to ten nodes over tensors of several axes: products of heads, convolutions, pools, reshapes, turns."""
    tensors: dict[str, tuple[int, ...]] = {"x": (3, draw(st.sampled_from(SIZES))), "image": (4, 4, 4)}
    inputs = [(name, TensorProto.FLOAT, ["rows", *dims]) for name, dims in tensors.items()]
    weights: dict[str, Any] = {}
    nodes = []

    def constant(array: Any) -> str:
        name = f"w{len(weights)}"
        weights[name] = np.asarray(array)
        return name

    def weight(*shape: int) -> str:
        random = np.random.default_rng(len(weights)).standard_normal(shape)
        return constant((random / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    for k in range(draw(st.integers(3, 10))):
        read = draw(st.sampled_from([*[list(tensors)[-1]] * 4, *tensors]))  # mostly on from the last one
        dims, made, out = tensors[read], f"t{k}", draw(st.sampled_from(SIZES))
        alike = [name for name, others in tensors.items() if others == dims]
        kinds = ["unary", "binary", "MatMul", "MatMul", "MatMul"]
        kinds += ["heads", "Reshape"] if dims[-1] % 2 == 0 else []
        kinds += ["Transpose", "join", "products"] if len(dims) > 1 else []
        kinds += ["attention"] * 3 if len(dims) == 2 and dims[-1] % 2 == 0 else []
        kinds += (
            [*["Conv"] * 4, "MaxPool", "GlobalAveragePool", "BatchNormalization", "Flatten"] if len(dims) == 3 else []
        )
        kind = draw(st.sampled_from(kinds))
        if kind == "unary":
            nodes.append(helper.make_node(draw(st.sampled_from(UNARY)), [read], [made]))
        elif kind == "binary":
            nodes.append(helper.make_node("Add", [read, draw(st.sampled_from(alike))], [made]))
        elif kind == "MatMul":
            nodes.append(helper.make_node("MatMul", [read, weight(dims[-1], out)], [made], name=f"n{k}"))
            dims = (*dims[:-1], out)
        elif kind in ("heads", "Reshape"):
            parted = (2, dims[-1] // 2) if kind == "heads" else (dims[-1] // 2, 2)
            dims = (*dims[:-1], *parted)
            nodes.append(helper.make_node("Reshape", [read, constant(np.array([0, *dims], np.int64))], [made]))
        elif kind == "join":
            dims = (*dims[:-2], dims[-2] * dims[-1])
            nodes.append(helper.make_node("Reshape", [read, constant(np.array([0, *dims], np.int64))], [made]))
        elif kind == "Transpose":
            order = draw(st.permutations(range(len(dims))))
            dims = tuple(dims[axis] for axis in order)
            nodes.append(helper.make_node("Transpose", [read], [made], perm=[0, *(axis + 1 for axis in order)]))
        elif kind == "products":  # as of queries and keys
            other, last = draw(st.sampled_from(alike)), len(dims)
            turned = [*range(last - 1), last, last - 1]
            nodes.append(helper.make_node("Transpose", [other], [f"{made}k"], perm=turned))
            nodes.append(helper.make_node("MatMul", [read, f"{made}k"], [f"{made}p"]))
            nodes.append(helper.make_node("Softmax", [f"{made}p"], [made], axis=-1))
            dims = (*dims[:-1], dims[-2])
        elif kind == "attention":  # its heads beside one another
            split, back = (
                constant(np.array([0, dims[0], 2, -1], np.int64)),
                constant(np.array([0, dims[0], -1], np.int64)),
            )
            for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
                nodes.append(
                    helper.make_node("MatMul", [read, weight(dims[-1], 8)], [f"{made}{name}"], name=f"{name}{k}")
                )
                nodes.append(helper.make_node("Reshape", [f"{made}{name}", split], [f"{made}{name}h"]))
                nodes.append(helper.make_node("Transpose", [f"{made}{name}h"], [f"{made}{name}t"], perm=order))
            nodes.append(helper.make_node("MatMul", [f"{made}qt", f"{made}kt"], [f"{made}s"]))
            nodes.append(helper.make_node("Softmax", [f"{made}s"], [f"{made}p"], axis=-1))
            nodes.append(helper.make_node("MatMul", [f"{made}p", f"{made}vt"], [f"{made}a"]))
            nodes.append(helper.make_node("Transpose", [f"{made}a"], [f"{made}at"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"{made}at", back], [made]))
            dims = (dims[0], 8)
        elif kind == "Conv":
            filters = [weight(out, dims[0], 3, 3), *([weight(out)] if draw(st.booleans()) else [])]
            nodes.append(helper.make_node("Conv", [read, *filters], [made], pads=[1] * 4, name=f"n{k}"))
            dims = (out, *dims[1:])
        elif kind == "MaxPool":
            nodes.append(helper.make_node("MaxPool", [read], [made], kernel_shape=[1, 1]))
        elif kind == "GlobalAveragePool":
            nodes.append(helper.make_node("GlobalAveragePool", [read], [made]))
            dims = (dims[0], 1, 1)
        elif kind == "BatchNormalization":
            known = [constant(np.full(dims[0], value, np.float32)) for value in (2, 1, 0.5, 1)]
            nodes.append(helper.make_node("BatchNormalization", [read, *known], [made]))
        else:
            nodes.append(helper.make_node("Flatten", [read], [made], axis=1))
            dims = (int(np.prod(dims)),)
        tensors[made] = dims
    names = [list(tensors)[-1]]
    outputs = [(name, TensorProto.FLOAT, ["rows", *tensors[name]]) for name in names]
    return model(nodes, inputs, outputs, weights)


def made_or_told(proto: ModelProto, ranks: int, by: By) -> Partition | str:
    """The partition, or why there is none."""
    try:
        return partition(proto, ranks, by, name="m")
    except InvalidInputError as error:
        return str(error)


def check(proto: ModelProto, ranks: int, by: By) -> None:
    """What is made of it is valid, is for every rank, and answers as the whole."""
    checker.check_model(proto, full_check=True)
    made = made_or_told(proto, ranks, by)
    if isinstance(made, str):
        assert any(words in made for words in ("more ranks than layers", "do not divide", "there is none")), made
        return
    with made:
        rng = np.random.default_rng(7)
        session = cpu_session(proto.SerializeToString())
        batch = {
            value.name: rng.standard_normal((7, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))).astype(
                np.float32
            )
            for value in proto.graph.input
        }
        compare(run(session, batch), made.chain()(batch))
        for part in made.plan.parts:
            checker.check_model(made.graph(part), full_check=True)
            assert part.outputs
        ranks_of = {part.rank for part in made.plan.parts} - {None}
        assert ranks_of == set(range(ranks))


@settings(max_examples=12, derandomize=True, suppress_health_check=list(HealthCheck))
@given(graphs(), st.integers(1, 4), st.sampled_from(get_args(By)))
def test_parts_answer_as_the_whole(proto: ModelProto, ranks: int, by: By) -> None:
    check(proto, ranks, by)


@settings(max_examples=24, derandomize=True, suppress_health_check=list(HealthCheck))
@given(shaped_graphs(), st.sampled_from((2, 4)), st.sampled_from(("column", "row", "layer")))
def test_heads_and_channels_stay_with_their_ranks(proto: ModelProto, ranks: int, by: By) -> None:
    check(proto, ranks, by)
