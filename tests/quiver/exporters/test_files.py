"""Models as files, with their weights wherever a model may keep them: read, written, and never whole in memory."""

import gc
import re
import tempfile
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.exporters import files, onnx_model
from gravswell.quiver.exporters.graph import tensors
from gravswell.quiver.exporters.proof import open_session
from gravswell.quiver.exporters.weights import LEAST, array_of, is_external, place, skim

WIDTH = 512
ROWS = np.arange(2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)


def _vector(name: str, value: float) -> TensorProto:
    return numpy_helper.from_array(np.full(WIDTH, value, np.float32), name)


def _constant(output: str, value: float) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], value=_vector("", value))


def _branch(name: str, value: float) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [WIDTH])
    node = helper.make_node("Identity", [f"{name}_weight"], [name])
    return helper.make_graph([node], name, [], [out], [_vector(f"{name}_weight", value)])


def _everywhere() -> onnx.ModelProto:
    """``y = x + 1 + 2 + 4 + 8 + 32`` (or 16 in place of 8): a weight in each place that a model has for one."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    nodes = [
        _constant("constant", 4.0),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("GreaterOrEqual", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["chosen"], then_branch=_branch("a", 8.0), else_branch=_branch("b", 16.0)),
        helper.make_node("Sum", ["x", "one", "two", "constant", "chosen"], ["most"]),
        helper.make_node("Plus", ["most"], ["y"], domain="mine"),
    ]
    graph = helper.make_graph(
        nodes,
        "everywhere",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [_vector("one", 1.0), _vector("two", 2.0), numpy_helper.from_array(np.float32(0), "zero")],
    )
    body = [_constant("c", 32.0), helper.make_node("Add", ["in", "c"], ["out"])]
    plus = helper.make_function("mine", "Plus", ["in"], ["out"], body, opsets[:1])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[plus])


@pytest.fixture
def scattered(tmp_path: Path) -> Path:
    """That model with the data in three files, one of them in a folder, at odd offsets, one length not stated."""
    model = _everywhere()
    folder = tmp_path / "given"
    (folder / "parts").mkdir(parents=True)
    contents: dict[str, bytes] = {"w.bin": b"odd", "v.bin": b"", "parts/c.bin": b""}
    for k, tensor in enumerate(t for t in tensors(model) if len(t.raw_data) >= LEAST):
        name = list(contents)[k % 3]
        raw = tensor.raw_data
        place(tensor, name, len(contents[name]), len(raw))
        if k == 1:
            del tensor.external_data[2]  # the length, which the shape says too
        contents[name] += raw + b"\0" * k
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    path = folder / "given.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _answer(path: Path) -> Any:
    return ort.InferenceSession(str(path)).run(None, {"x": ROWS})[0]


def _values(path: Path) -> list[Any]:
    proto = skim(path)
    return sorted(float(array_of(t, path).ravel()[0]) for t in tensors(proto))


@pytest.mark.parametrize("limit", [files.INLINE_LIMIT, 100])
def test_weights_wherever_they_are_reach_the_version(
    scattered: Path, entry: qv.Entry, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    before = {path: path.read_bytes() for path in scattered.parent.rglob("*") if path.is_file()}
    monkeypatch.setattr(files, "INLINE_LIMIT", limit)
    published = Path(entry.export_version(scattered))
    visible = sorted(p.name for p in published.parent.iterdir() if not p.name.startswith("."))
    apart = limit == 100
    assert visible == ["model.onnx", "model.onnx.data"][: 1 + apart]
    np.testing.assert_array_equal(_answer(published), ROWS + 47)
    assert _values(published) == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    onnx.checker.check_model(str(published))
    outside = [t for t in tensors(onnx.load(str(published), load_external_data=False)) if is_external(t)]
    assert len(outside) == (6 if apart else 0)
    assert all(int(e.value) % 4096 == 0 for t in outside for e in t.external_data if e.key == "offset")
    assert {path: path.read_bytes() for path in scattered.parent.rglob("*") if path.is_file()} == before
    again = entry.export_version(scattered)
    assert Path(again).read_bytes() == published.read_bytes(), "the same model gives the same bytes"


def test_weights_that_are_said_to_be_in_the_graph_are_found(tmp_path: Path) -> None:
    """As onnx leaves them after it has loaded external data: the field behind the data says where it is."""
    model = _everywhere()
    for tensor in tensors(model):
        tensor.data_location = TensorProto.DEFAULT
    (tmp_path / "given.onnx").write_bytes(model.SerializeToString())
    proto = files.load(tmp_path / "given.onnx")
    assert any(map(is_external, proto.graph.initializer))
    proto.doc_string = "changed"
    written = files.write(proto, tmp_path, tmp_path / "given.onnx")
    np.testing.assert_array_equal(_answer(written), ROWS + 47)


def test_data_that_weights_have_in_common_is_written_once(
    scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = files.load(scattered)
    for tensor in proto.graph.initializer[:2]:
        place(tensor, "w.bin", 3, 4 * WIDTH)
    monkeypatch.setattr(files, "INLINE_LIMIT", 100)
    written = files.write(proto, tmp_path, scattered)
    spans = [{e.key: e.value for e in t.external_data} for t in skim(written).graph.initializer[:2]]
    assert spans[0] == spans[1]


@pytest.mark.parametrize("limit", [files.INLINE_LIMIT, 100])
def test_a_proto_is_written_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    model = _everywhere()
    model.graph.initializer[0].CopyFrom(helper.make_tensor("one", TensorProto.FLOAT, [WIDTH], [1.0] * WIDTH))
    before = model.SerializeToString(deterministic=True)
    monkeypatch.setattr(files, "INLINE_LIMIT", limit)
    written = files.write(model, tmp_path, None)
    np.testing.assert_array_equal(_answer(written), ROWS + 47)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("apart", [False, True])
def test_a_newer_graph_is_brought_down_with_its_weights(tmp_path: Path, entry: qv.Entry, apart: bool) -> None:
    """The converter is given the structure alone."""
    weight = _vector("weight", 7.0)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weight"], ["y"])],
        "newer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    if apart:
        (tmp_path / "w.bin").write_bytes(weight.raw_data)
        place(model.graph.initializer[0], "w.bin", 0, 4 * WIDTH)
    (tmp_path / "given.onnx").write_bytes(model.SerializeToString())
    published = Path(entry.export_version(tmp_path / "given.onnx"))
    np.testing.assert_array_equal(_answer(published), ROWS + 7)
    assert onnx.load(str(published)).opset_import[0].version == 21


def test_a_weight_far_behind_in_its_file(tmp_path: Path, entry: qv.Entry) -> None:
    """Above 2 GiB of a data file, most of which is a hole."""
    model, raw = _everywhere(), np.ones(WIDTH, np.float32).tobytes()
    place(model.graph.initializer[0], "far.bin", 2**31 + 2**20, len(raw))
    with (tmp_path / "far.bin").open("wb") as sink:
        sink.seek(2**31 + 2**20)
        sink.write(raw)
    (tmp_path / "given.onnx").write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(_answer(Path(entry.export_version(tmp_path / "given.onnx"))), ROWS + 47)


@pytest.mark.parametrize(
    ("key", "value", "fact"),
    [
        ("offset", "4096", r"at offset 4096, length 2048, and that has 2048 bytes"),
        ("offset", "-8", "at offset -8"),
        ("length", "none", "length none"),
    ],
)
def test_a_data_file_that_does_not_hold_it(tmp_path: Path, entry: qv.Entry, key: str, value: str, fact: str) -> None:
    model = _everywhere()
    place(model.graph.initializer[0], "w.bin", 0, 4 * WIDTH)
    next(e for e in model.graph.initializer[0].external_data if e.key == key).value = value
    (tmp_path / "w.bin").write_bytes(bytes(4 * WIDTH))
    (tmp_path / "given.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InvalidInputError, match=f"tensor 'one' keeps its data in 'w.bin'.*{fact}"):
        entry.export_version(tmp_path / "given.onnx")


def test_every_unnamed_tensor_is_looked_at(tmp_path: Path) -> None:
    """The tensors of Constant nodes have no names; the last one's file says nothing of the others'."""
    model = _everywhere()
    model.graph.node.add().CopyFrom(_constant("unused", 3.0))
    first, last = (t for t in tensors(model) if not t.name and len(t.raw_data) == 4 * WIDTH and t.raw_data[3] == 64)
    place(first, "../secret", 0, 4 * WIDTH)
    place(last, "w.bin", 0, 4 * WIDTH)
    for file in (tmp_path / "w.bin", tmp_path.parent / "secret"):
        file.write_bytes(bytes(4 * WIDTH))
    (tmp_path / "given.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InvalidInputError, match="outside the model's folder"):
        files.load(tmp_path / "given.onnx")
    place(first, "gone.bin", 0, 4 * WIDTH)
    (tmp_path / "given.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NotFoundError, match=r"gone\.bin"):
        files.load(tmp_path / "given.onnx")


def test_a_link_to_a_model_is_as_good_as_the_model(tmp_path: Path, entry: qv.Entry) -> None:
    """As a hub's cache has them; its weights are in the file that the link leads to."""
    (tmp_path / "blob").write_bytes(_everywhere().SerializeToString())
    (tmp_path / "given.onnx").symlink_to(tmp_path / "blob")
    assert Path(entry.export_version(tmp_path / "given.onnx")).read_bytes() == (tmp_path / "blob").read_bytes()


def test_weights_pass_through_a_piece_at_a_time(tmp_path: Path) -> None:
    """What Python allocates for 64 MB of weights; the benchmark measures whole exports, ONNX Runtime included."""
    model = _everywhere()
    model.graph.initializer.add(name="large", data_type=TensorProto.FLOAT, dims=[1 << 24])
    place(model.graph.initializer[-1], "large.bin", 0, 1 << 26)
    with (tmp_path / "large.bin").open("wb") as sink:
        sink.truncate(1 << 26)
    (tmp_path / "given.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    try:
        proto = files.load(tmp_path / "given.onnx")
        written = files.write(proto, tmp_path / "out", tmp_path / "given.onnx")
        files.load(written)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.stat().st_size > 1 << 26
    assert peak < 8 << 20


def test_a_large_proto_goes_through_a_file(entry: qv.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "_LARGE", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = _everywhere()
    np.testing.assert_array_equal(_answer(Path(entry.export_version(model))), ROWS + 47)
    assert entry.versions[-1].manifest.verification.samples == 3
    assert not list(tmp_path.glob("gravswell-model-*"))
    assert model.SerializeToString() == _everywhere().SerializeToString()


def test_weights_in_a_data_file_are_mapped_to_be_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 MB of them, of which ONNX Runtime would have a copy in memory of its own."""
    monkeypatch.setattr(files, "INLINE_LIMIT", 0)
    weight = np.zeros((4096, 8192), np.float32)
    weight[0] = 1.0
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4096])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8192])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = files.write(model, tmp_path, None)
    before = _anonymous()
    session = open_session(path, mapped=True)
    (y,) = session.run(None, {"x": np.ones((2, 4096), np.float32)})
    assert y.tolist() == np.ones((2, 8192)).tolist()
    assert _anonymous() - before < weight.nbytes // 2


def _anonymous() -> int:
    """Bytes in memory that are no file's."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)[0]) * 1024


def test_one_session_lives_at_a_time(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds the model; here the first one is tried with several inputs before it takes any."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["ids", "shift"], ["shifted"]),
            helper.make_node("Gather", ["table", "shifted"], ["y"]),
        ],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length", 4])],
        [
            numpy_helper.from_array(np.ones((3, 4), np.float32), "table"),
            numpy_helper.from_array(np.int64([1]), "shift"),
        ],
    )
    real: Callable[..., Any] = ort.InferenceSession
    alive: list[weakref.ref[Any]] = []

    def opening(*args: Any, **kwargs: Any) -> Any:
        assert not any(session() for session in alive), "the earlier session is still there"
        session = real(*args, **kwargs)
        alive.append(weakref.ref(session))
        return session

    monkeypatch.setattr(ort, "InferenceSession", opening)
    gc.disable()  # cycles do not wait for it
    try:
        entry.export_version(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    finally:
        gc.enable()
    assert len(alive) == 2


def test_a_large_proto_leaves_no_file_where_it_is_refused(
    entry: qv.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even while somebody keeps the error, as a notebook does."""
    monkeypatch.setattr(onnx_model, "_LARGE", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for arguments in ({"input_shapes": {"x": (None, 3)}}, {"output_names": ["z"]}, {"rtol": 0.0, "opset": 17}):
        with pytest.raises(InvalidInputError) as kept:
            entry.export_version(_everywhere(), **arguments)
        assert not list(tmp_path.glob("gravswell-model-*")), kept.value


def test_a_number_without_an_end_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "given.onnx").write_bytes(b"\xff" * (1 << 20))
    with pytest.raises(InvalidInputError, match=r"given\.onnx is no ONNX model: .*does not end"):
        files.load(tmp_path / "given.onnx")
