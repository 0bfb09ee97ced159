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


def made_or_told(proto: ModelProto, ranks: int, by: By) -> Partition | str:
    """The partition, or why there is none."""
    try:
        return partition(proto, ranks, by, name="m")
    except InvalidInputError as error:
        return str(error)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(graphs(), st.integers(1, 4), st.sampled_from(get_args(By)))
def test_parts_answer_as_the_whole(proto: ModelProto, ranks: int, by: By) -> None:
    checker.check_model(proto, full_check=True)
    made = made_or_told(proto, ranks, by)
    if isinstance(made, str):
        assert any(words in made for words in ("more ranks than layers", "do not divide", "there is none")), made
        return
    with made:
        rng = np.random.default_rng(7)
        session = cpu_session(proto.SerializeToString())
        batch = {
            value.name: rng.standard_normal((7, value.type.tensor_type.shape.dim[1].dim_value)).astype(np.float32)
            for value in proto.graph.input
        }
        compare(run(session, batch), made.chain()(batch))
        for part in made.plan.parts:
            checker.check_model(made.graph(part), full_check=True)
            assert part.outputs
        ranks_of = {part.rank for part in made.plan.parts} - {None}
        assert ranks_of == set(range(ranks))
