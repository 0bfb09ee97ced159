"""Repositories as others write them, imported: proved, numbered as they were, and served by the real Triton."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import external_data_helper, numpy_helper

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, UnsupportedError
from gravswell.quiver.exporters import files
from gravswell.quiver.importing import Imported, import_repository
from gravswell.quiver.lint import lint
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.verification import verify_version
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton

Affine = Callable[..., Any]
Write = Callable[..., Path]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return tmp_path / "theirs"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return tmp_path / "ours"


@pytest.fixture
def write(theirs: Path, affine: Affine) -> Write:
    """``write("m", "config", {1: model})``; with ``data``, that is where the weights are."""

    def make(name: str, config: str | None, versions: dict[int, Any] | None = None, data: str | None = None) -> Path:
        for number, model in (versions or {1: affine()}).items():
            folder = theirs / name / str(number)
            folder.mkdir(parents=True)
            if data is not None:
                external_data_helper.convert_model_to_external_data(model, location=data, size_threshold=0)
            onnx.save(model, str(folder / "model.onnx"))
        if config is not None:
            (theirs / name / "config.pbtxt").write_text(config)
        return theirs / name

    return make


def _results(rows: list[Imported]) -> list[tuple[str, int, str]]:
    return [(row.entry, row.version, row.result) for row in rows]


def test_what_others_wrote_becomes_verified(theirs: Path, ours: Path, write: Write, affine: Affine) -> None:
    write("bare", None, {2: affine(), 5: affine(scale=3.0)})
    write("part", '# by hand\nbackend: "onnxruntime" # theirs\nmax_batch_size: 4\ninstance_group { kind: KIND_GPU }\n')
    write("split", 'platform: "onnxruntime_onnx"', {1: affine()}, data="weights.bin")
    (theirs / "split/1/vocab.txt").write_text("a")
    other = write("named", 'default_model_filename: "net.onnx" platform: "onnxruntime_onnx"')
    (other / "1/model.onnx").rename(other / "1/net.onnx")
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    told: list[Imported] = []
    rows = import_repository(theirs, ours, on_version=told.append)
    assert told == rows
    assert _results(rows) == [
        ("bare", 2, "imported"),
        ("bare", 5, "imported"),
        ("named", 1, "imported"),
        ("part", 1, "imported"),
        ("split", 1, "imported"),
    ]
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before
    reader = RepositoryReader(ours)
    manifest = reader.manifest("bare", 5)[0]
    assert manifest.verification.reference == f"onnxruntime {onnxruntime.__version__}"
    assert (manifest.verification.inputs, manifest.verification.batch_sizes) == ("random", (1, 2, 5))
    assert (ours / "bare/2/model.onnx").read_bytes() == (theirs / "bare/2/model.onnx").read_bytes()
    text = (ours / "part/config.pbtxt").read_text()
    assert text.startswith("# by hand\n")
    assert "KIND_GPU" in text
    assert rows[-1].message == "without vocab.txt, which Triton does not read"
    assert verify_version(reader, "split", 1).samples == 3
    assert {f.rule.id for f in lint(ours)} == {"group-needs-gpu", "group-count"}  # as they wrote it
    with EmbeddedTriton(ours) as server:
        assert {model.name: model.versions for model in server.served()} == {
            "bare": [5],
            "named": [1],
            "part": [1],
            "split": [1],
        }
    again = import_repository(theirs, ours)
    assert {row.result for row in again} == {"same"}
    assert again[0].digest == rows[0].digest


def test_samples_of_one_s_own(theirs: Path, ours: Path, write: Write) -> None:
    write("m", None)
    batch = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    (row,) = import_repository(theirs, ours, ["m"], sample_inputs={"m": [batch]}, rtol=1e-3)
    assert row.result == "imported"
    proof = RepositoryReader(ours).manifest("m", 1)[0].verification
    assert (proof.inputs, proof.rtol) == ("given", 1e-3)
    with pytest.raises(NotFoundError, match="no entry 'n'"):
        import_repository(theirs, ours, sample_inputs={"n": [batch]})


def test_sizes_of_one_s_own(theirs: Path, ours: Path, write: Write) -> None:
    write("m", None)
    (row,) = import_repository(theirs, ours, input_shapes={"m": {"x": (7, 4)}})
    assert row.result == "imported"
    assert RepositoryReader(ours).manifest("m", 1)[0].verification.shapes[0] == {"x": (7, 4)}


def test_shapes_that_the_graph_does_not_state(theirs: Path, ours: Path, write: Write, affine: Affine) -> None:
    """Where they were stated by hand, the version is known again too."""
    model = affine()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    write("m", None, {1: model})
    assert import_repository(theirs, ours)[0].result == "failed"
    for result in ("imported", "same"):
        (row,) = import_repository(theirs, ours, input_shapes={"m": {"x": (None, 4)}})
        assert (row.result, row.message) == (result, "")


def test_for_an_older_server(theirs: Path, ours: Path, write: Write, affine: Affine) -> None:
    write("m", None, {1: affine(opset=18)})
    assert import_repository(theirs, ours, target="22.05")[0].result == "imported"
    assert onnx.load(ours / "m/1/model.onnx").opset_import[0].version == 16
    assert import_repository(theirs, ours, target="22.05")[0].result == "same"
    assert import_repository(theirs, ours)[0].result == "failed", "another graph"


def test_another_model_with_the_same_graph_is_not_the_same(
    theirs: Path, ours: Path, write: Write, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the limit of one file the graphs are equal, and only the data differs."""
    monkeypatch.setattr(files, "INLINE_LIMIT", 0)
    model = affine(1024)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(1024, 2, np.float32), "scale"))
    data = write("m", None, {1: model}, data="weights.bin") / "1/weights.bin"
    assert import_repository(theirs, ours)[0].result == "imported"
    assert import_repository(theirs, ours)[0].result == "same"
    data.write_bytes(np.full(1024, 3, np.float32).tobytes())
    assert "is another model" in import_repository(theirs, ours)[0].message


@pytest.mark.parametrize("location", ["../weights.bin", "absolute", "link"])
def test_data_outside_the_folder_is_refused(
    location: str, theirs: Path, ours: Path, write: Write, affine: Affine, tmp_path: Path
) -> None:
    folder = write("m", None, {1: affine()}, data="weights.bin")
    secret = tmp_path / "secret"
    (folder / "1/weights.bin").rename(secret)
    if location == "link":
        (folder / "1/weights.bin").symlink_to(secret)
    else:
        model = onnx.load(str(folder / "1/model.onnx"), load_external_data=False)
        (entry,) = [e for e in model.graph.initializer[0].external_data if e.key == "location"]
        entry.value = str(secret) if location == "absolute" else location
        (folder / "weights.bin").write_bytes(secret.read_bytes())
        (folder / "1/model.onnx").write_bytes(model.SerializeToString())
    (row,) = import_repository(theirs, ours)
    assert row.result == "failed"
    assert isinstance(row.error, InvalidInputError)
    assert "outside the model's folder" in row.message
    assert RepositoryReader(ours).entries() == []


def test_what_cannot_be_imported_is_told_and_hinders_nothing_else(
    theirs: Path, ours: Path, write: Write, affine: Affine
) -> None:
    write("a-python", 'backend: "python"')
    write("b-ensemble", 'platform: "ensemble" ensemble_scheduling { step { model_name: "gone" } }')
    write("c-labels", 'output { name: "y" data_type: TYPE_FP32 dims: [-1, 4] label_filename: "names.txt" }')
    write("d-wrong", 'platform: "onnxruntime_onnx" input { name: "q" data_type: TYPE_FP32 dims: [4] }')
    write("e-fixed", 'platform: "onnxruntime_onnx" max_batch_size: 8', {1: affine(batch=2)})
    (write("f-empty", None) / "1/model.onnx").rename(theirs / "f-empty/1/model.plan")
    broken = write("g-half", None, {1: affine(), 2: affine(), 3: affine(scale=3.0)})
    (broken / "2/model.onnx").write_bytes(b"no model")
    write("z", None)
    rows = import_repository(theirs, ours)
    assert _results(rows) == [
        ("a-python", 0, "failed"),
        ("c-labels", 0, "failed"),
        ("d-wrong", 1, "failed"),
        ("e-fixed", 1, "failed"),
        ("f-empty", 1, "failed"),
        ("g-half", 1, "imported"),
        ("g-half", 2, "failed"),  # and not 3, after which 2 could never come
        ("z", 1, "imported"),
        ("b-ensemble", 1, "failed"),
    ]
    assert isinstance(rows[0].error, UnsupportedError)
    assert "b-ensemble is an ensemble of gone, which is not in" in rows[-1].message
    facts = ("python backend", "names.txt", "'x'", "max_batch_size=8", "no model.onnx", "", "is no ONNX")
    for row, fact in zip(rows, facts, strict=False):
        assert fact in row.message
    assert RepositoryReader(ours).entries() == ["g-half", "z"]
    (broken / "2/model.onnx").write_bytes(affine().SerializeToString())
    assert [row.result for row in import_repository(theirs, ours, ["g-half"])] == ["same", "imported", "imported"]


TENSORS = "".join(
    f'{side} {{ name: "{n}" data_type: TYPE_FP32 dims: [-1, 4] }} ' for side, n in (("input", "x"), ("output", "z"))
)


def _step(model: str, number: int, given: str, made: str) -> str:
    maps = f'input_map {{ key: "x" value: "{given}" }} output_map {{ key: "y" value: "{made}" }}'
    return f'step {{ model_name: "{model}" model_version: {number} {maps} }} '


def test_an_ensemble_becomes_a_pipeline_of_the_versions_that_are_there(
    theirs: Path, ours: Path, write: Write, affine: Affine
) -> None:
    steps = _step("second", -1, "n", "z") + _step("first", 1, "x", "n")
    (theirs / "chain/3").mkdir(parents=True)
    (theirs / "chain/config.pbtxt").write_text(
        f'platform: "ensemble" # theirs\n{TENSORS} ensemble_scheduling {{ {steps} }}'
    )
    both = 'platform: "onnxruntime_onnx" version_policy { all {} }'
    write("first", both, {1: affine(), 2: affine(scale=9.0)})
    write("second", None, {1: affine(scale=5.0), 4: affine(scale=3.0)})
    rows = import_repository(theirs, ours)
    assert _results(rows)[-1] == ("chain", 3, "imported"), rows[-1]
    entry = qv.ModelRepository(ours).models["chain"]
    members = [(member.model, member.version) for member in entry.version(3).manifest.members]
    assert sorted(members) == [("first", 1), ("second", 4)]
    assert "# theirs" in (ours / "chain/config.pbtxt").read_text()
    assert verify_version(RepositoryReader(ours), "chain", 3).samples == 3
    assert lint(ours) == []
    with pytest.raises(ConflictError, match="chain/3"):
        qv.ModelRepository(ours).models["first"].remove_version(1)
    assert _results(import_repository(theirs, ours, ["chain"])) == [("chain", 3, "same")]
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    first, second = (onnxruntime.InferenceSession(ours / path / "model.onnx") for path in ("first/1", "second/4"))
    with EmbeddedTriton(ours, models=["chain"]) as server, Client(server.http_address) as client:
        assert [model.name for model in server.served()] == ["chain", "first", "second"]
        (between,) = first.run(["y"], {"x": x})
        (wanted,) = second.run(["y"], {"x": between})
        np.testing.assert_array_equal(client.request("chain", {"x": x}).outputs["z"], wanted)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (_step("first", 7, "x", "z"), "first has no version 7"),
        (_step("first", 1, "x", "z").replace('"y"', '"q"'), "the step of first/1 maps q; it takes x and gives y"),
        (
            _step("first", 1, "x", "n").replace('"x"', '"q"', 1) + _step("first", 1, "n", "z"),
            "the step of first/1 maps q",
        ),
        (_step("first", 1, "x", "n"), "no step makes z, which chain as its output takes"),
        (_step("first", 1, "x", "n") + _step("first", 1, "m", "z"), "no step makes m, which first/1 takes"),
        ("", "no step makes z"),
        (_step("other", 1, "x", "z"), "other"),
    ],
)
def test_an_ensemble_that_cannot_be_is_told(theirs: Path, ours: Path, write: Write, steps: str, told: str) -> None:
    write("first", None)
    (theirs / "chain/1").mkdir(parents=True)
    (theirs / "chain/config.pbtxt").write_text(f'platform: "ensemble" {TENSORS} ensemble_scheduling {{ {steps} }}')
    rows = import_repository(theirs, ours)
    assert _results(rows) == [("first", 1, "imported"), ("chain", 1, "failed")]
    assert told in rows[-1].message
    assert RepositoryReader(ours).entries() == ["first"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x", "x is TYPE_INT64, the input of chain, and first/1 takes TYPE_FP32"),
        ("z", "z is TYPE_FP32, made by first/1, and chain as its output takes TYPE_INT64"),
    ],
)
def test_an_ensemble_that_states_another_type_is_told(
    theirs: Path, ours: Path, write: Write, name: str, told: str
) -> None:
    """Triton would not load it."""
    write("first", None)
    (theirs / "chain/1").mkdir(parents=True)
    tensors = TENSORS.replace(f'"{name}" data_type: TYPE_FP32', f'"{name}" data_type: TYPE_INT64')
    text = f'platform: "ensemble" {tensors} ensemble_scheduling {{ {_step("first", 1, "x", "z")} }}'
    (theirs / "chain/config.pbtxt").write_text(text)
    rows = import_repository(theirs, ours)
    assert (rows[-1].result, told in rows[-1].message) == ("failed", True), rows[-1]


def test_what_is_in_the_way_is_left_alone(theirs: Path, ours: Path, write: Write, affine: Affine) -> None:
    write("m", None, {1: affine()})
    qv.ModelRepository(ours).add("m").export_version(affine(scale=9.0))
    (row,) = import_repository(theirs, ours)
    assert (row.result, "is another model" in row.message) == ("failed", True)
    (skipped,) = import_repository(ours, theirs.parent / "third")
    assert (skipped.result, "gravswell copy" in skipped.message) == ("skipped", True)
    with pytest.raises(InvalidInputError, match="both source and destination"):
        import_repository(theirs, theirs)
