"""From a function to a published version: what is in it, what it is proved by, and what is refused before that."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from gravswell import quiver as qv
from gravswell.cli.app import app
from gravswell.errors import ExportError, InvalidInputError, NotFoundError, UnavailableError, VerificationError
from gravswell.quiver.composition.opening import opened
from gravswell.quiver.golden import load_golden
from gravswell.quiver.reader import RepositoryReader

from .conftest import fill, onnx_model, scaled
from .functions import BIAS, repeated, six
from .words import counted

PIPELINE = qv.Platform.PIPELINE
LOW, HIGH = np.float32(-1.5), np.float32(3)


def verified(repo: qv.ModelRepository, entry: str, number: int = 1) -> int:
    return qv.verify_version(RepositoryReader(repo.url), entry, number).samples


def test_an_ensemble(repo: qv.ModelRepository, root: Path) -> None:
    entry = repo.add("six", PIPELINE)
    assert (entry.platform, str(entry.config)) == (PIPELINE, 'name: "six"\nplatform: "ensemble"\n')
    assert entry.export_version(six) == str(root / "six/1/.config.pbtxt")
    manifest = entry.version(1).manifest
    assert [(m.alias, m.model, m.version) for m in manifest.members] == [
        ("double", "double", 1),
        ("triple", "triple", 1),
    ]
    assert {m.digest for m in manifest.members} == {repo.models[n].version(1).digest for n in ("double", "triple")}
    assert sorted(path.name for path in (root / "six/1").iterdir()) == [
        ".config.pbtxt",
        ".golden.npz",
        ".manifest.json",
    ]
    config = entry.config
    assert [s.model_version for s in config.ensemble_scheduling.step] == [1, 1]
    assert config.parameters["gravswell.access"].string_value == "private"
    assert (entry.inputs["x"].dims, entry.outputs["z"].dims) == ((-1, 4), (-1, 4))
    assert manifest.verification.batch_sizes == (1, 2, 5)
    assert verified(repo, "six") == 3
    sample = load_golden(root / "six/1/.golden.npz")[0]
    np.testing.assert_array_equal(sample.outputs["z"], 6 * sample.inputs["x"])
    assert qv.lint.lint(root) == []


def test_a_member_moves_on_and_the_pipeline_does_not(repo: qv.ModelRepository) -> None:
    entry = repo.add("six", PIPELINE)
    entry.export_version(six)
    repo.models["double"].export_version(scaled(20.0))
    assert verified(repo, "six") == 3
    entry.export_version(six)
    assert [member.version for member in entry.version(2).manifest.members] == [2, 1]
    assert verified(repo, "six", 2) == 3
    assert [s.model_version for s in entry.config.ensemble_scheduling.step] == [2, 1]
    assert qv.lint.lint(repo.location) == []  # of double only the newest is loaded, and that is the one that is pinned


def test_lint_tells_of_a_pin_that_a_plain_triton_does_not_load(repo: qv.ModelRepository) -> None:
    repo.add("six", PIPELINE).export_version(six)
    repo.add("repeated", PIPELINE).export_version(repeated)
    fill(repo, "double")
    found = {finding.place: finding.rule.id for finding in qv.lint.lint(repo.location)}
    assert found == {"six/config.pbtxt": "step-version", "repeated/config.pbtxt": "member-version"}


def test_python(repo: qv.ModelRepository, root: Path) -> None:
    entry = repo.add("repeated", PIPELINE)
    assert entry.export_version(repeated) == str(root / "repeated/1/model.py")
    assert entry.platform is PIPELINE
    files = {path.relative_to(root / "repeated/1").as_posix() for path in (root / "repeated/1").rglob("*")}
    assert files >= {
        "model.py",
        "gravswell_calling.py",
        "pipeline.json",
        "source/pipeline_source.py",
        "assets/BIAS.npy",
    }
    config = entry.config
    assert (config.backend, config.platform) == ("python", "")
    assert config.parameters["gravswell.member.triple"].string_value == "triple:1"
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, group.KIND_CPU)
    assert entry.inputs["times"].data_type == "TYPE_INT32"
    assert verified(repo, "repeated") == 3
    for sample in load_golden(root / "repeated/1/.golden.npz"):
        x, (times,) = sample.inputs["x"], sample.inputs["times"]
        wanted = 3 * np.clip(x + BIAS, LOW, HIGH) * 2.0 ** (times % 3)
        np.testing.assert_allclose(sample.outputs["z"], wanted if times else wanted / np.sqrt(14), rtol=1e-5)


def test_one_entry_is_an_ensemble_and_then_python(repo: qv.ModelRepository) -> None:
    entry = repo.add("six", PIPELINE)
    entry.export_version(six)
    entry.config.parameters["note"].string_value = "mine"
    entry.export_version(qv.Pipeline(six.function, compile_to="python"))
    config = entry.config
    assert (config.backend, config.platform, len(config.ensemble_scheduling.step)) == ("python", "", 0)
    assert config.parameters["note"].string_value == "mine"
    assert verified(repo, "six", 2) == 3
    entry.export_version(six)
    config = entry.config
    assert (config.backend, config.platform, len(config.instance_group)) == ("", "ensemble", 0)
    assert {key for key in config.parameters if key.startswith("gravswell.")} == {"gravswell.access"}
    assert [verified(repo, "six", number) for number in (1, 2, 3)] == [3, 3, 3]


def test_text_a_file_and_a_module_that_is_cached(repo: qv.ModelRepository, root: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a model of tensors")

    def count(text: Any, *, double: Any, words: Any) -> Any:
        return double(counted(text, words)), np.array([t.upper() for t in text])

    made = qv.Pipeline(count, inputs={"text": ("STRING", (None,))}, output_names=["n", "up"], assets={"words": words})
    given = {"text": np.array(["A model, a Model", "ünter tensors"])}
    entry = repo.add("count", PIPELINE)
    entry.export_version(made, sample_inputs=given)
    words.unlink()
    assert entry.outputs["up"].data_type == "TYPE_STRING"
    assert entry.outputs["n"].dims == (-1, 4)
    assert verified(repo, "count") == 1  # what the first axis of Python's inputs is, only its author knows
    (whole,) = load_golden(root / "count/1/.golden.npz")
    assert whole.outputs["n"].tolist() == [[4, 4, 0, 0], [0, 0, 0, 2]]
    assert whole.outputs["up"].tolist() == ["A MODEL, A MODEL", "ÜNTER TENSORS"]


SEEN: list[int] = []
CACHE: dict[str, Any] = {}
ROOM = np.zeros(4, np.float32)


def remembering(x: Any, *, double: Any) -> Any:
    SEEN.append(len(SEEN))
    if "fitted" not in CACHE:
        CACHE["fitted"] = object()
    ROOM[:] = 1
    return double(x + 0)


def test_what_runs_leave_behind_stays_here(repo: qv.ModelRepository, root: Path) -> None:
    entry = repo.add("remembering", PIPELINE)
    made = qv.Pipeline(remembering, inputs=X, output_names=["z"])
    entry.export_version(made)
    assert SEEN
    source = (root / "remembering/1/source/pipeline_source.py").read_text()
    assert "SEEN = []" in source
    assert "CACHE = dict([])" in source
    assert np.load(root / "remembering/1/assets/ROOM.npy").tolist() == [0, 0, 0, 0]
    with pytest.raises(InvalidInputError, match=r"CACHE, a builtins.dict, .*calls have filled it, .*functools.cache"):
        entry.export_version(made)


@pytest.mark.parametrize(("second_weight", "z_is"), [(0.5, -48.0), (1.5, -144.0)])
def test_the_oracle_of_two_graphs_of_one_network(tmp_path: Path, second_weight: float, z_is: float) -> None:
    """MindSpore's: x = -(2 * ones @ w), z = -(ones @ w), over 96 columns; what it prints is of 0.5 in both graphs."""
    repo = qv.ModelRepository(tmp_path / "repo")
    for name, weight in (("matmul-0", 0.5), ("matmul-1", second_weight)):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Neg", ["p"], ["y"])]
        weights = {"w": np.full((96, 16), weight, np.float32)}
        sides = {"x": (TensorProto.FLOAT, ["n", 96])}, {"y": (TensorProto.FLOAT, ["n", 16])}
        repo.add(name).export_version(onnx_model(nodes, *sides, weights))

    def add_preprocess(x: Any) -> Any:
        return np.add(x, x)

    @qv.pipeline(
        inputs=dict.fromkeys("xy", ("FP32", (None, 96))),
        outputs=dict.fromkeys("xz", ("FP32", (None, 16))),
        members={"first": "matmul-0", "second": "matmul-1"},
    )
    def predict(x: Any, y: Any, *, first: Any, second: Any) -> Any:
        x = first(add_preprocess(x))
        for _ in range(10):
            z = second(y)
        return x, z

    repo.add("matmul", PIPELINE).export_version(predict)
    assert verified(repo, "matmul") == 3
    x, z = predict.bind(repo)(*[np.ones((128, 96), np.float32)] * 2)
    assert (x.shape, x.dtype, z.shape) == ((128, 16), np.float32, (128, 16))
    assert set(x.ravel()) == {-96.0}
    assert set(z.ravel()) == {z_is}


def test_init_once_and_step_many_times(repo: qv.ModelRepository, root: Path) -> None:
    @qv.pipeline(inputs={"x": ("FP32", (None, 4)), "n": ("INT32", (1,))}, output_names=["state", "steps"])
    def generate(x: Any, n: Any, *, triple: Any, double: Any) -> Any:
        state, done = triple(x), 0
        while done < n[0]:
            state, done = double(state), done + 1
        return {"state": state, "steps": np.array([done], np.int64)}

    sample = {"x": np.ones((2, 4), np.float32), "n": np.array([7], np.int32)}
    repo.add("generate", PIPELINE).export_version(generate, sample_inputs=sample)
    (kept,) = load_golden(root / "generate/1/.golden.npz")
    assert (kept.outputs["state"] == 3 * 2**7).all()
    assert kept.outputs["steps"].tolist() == [7]
    reader = RepositoryReader(root)
    with opened(reader, reader.manifest("generate", 1)[0], root / "generate/1", root.parent / "members") as runner:
        again = runner.run({**sample, "n": np.array([2], np.int32)})
    assert again["steps"].tolist() == [2]


def test_batches_that_members_do_not_take(repo: qv.ModelRepository, root: Path) -> None:
    fill(repo, "wide", max_batch_size=2)

    def narrow(x: Any, *, wide: Any) -> Any:
        return wide(x)

    with pytest.raises(InvalidInputError, match=r"batches of 8 rows, and its member wide/1 takes up to 2: export the"):
        repo.add("eight", PIPELINE).export_version(qv.Pipeline(narrow, output_names=["z"]), max_batch_size=8)
    assert [entry for entry in repo.models if repo.models[entry].versions] == ["double", "triple", "wide"]
    entry = repo.add("two", PIPELINE)
    entry.export_version(qv.Pipeline(narrow, output_names=["z"]), max_batch_size=2)
    assert (entry.config.max_batch_size, list(entry.config.input[0].dims)) == (2, [8])
    assert entry.version(1).manifest.verification.batch_sizes == (1, 2)
    python = repo.add("python", PIPELINE)
    python.export_version(
        qv.Pipeline(narrow, inputs={"x": ("FP32", (None, 8))}, output_names=["z"], compile_to="python"),
        max_batch_size=2,
    )
    spec = json.loads((root / "python/1/pipeline.json").read_text())
    assert (spec["max_batch_size"], spec["members"]["wide"]["max_batch_size"]) == (2, 2)
    assert verified(repo, "python") == 2


def test_python_that_splits_what_a_member_does_not_take(repo: qv.ModelRepository) -> None:
    fill(repo, "wide", max_batch_size=2)

    def whole(x: Any, *, wide: Any) -> Any:
        return wide(x + 0)

    def halved(x: Any, *, wide: Any) -> Any:
        return np.concatenate([wide(x[k : k + 2]) for k in range(0, len(x), 2)])

    how: Any = {"inputs": {"x": ("FP32", (None, 8))}, "output_names": ["z"]}
    entry = repo.add("eight", PIPELINE)
    with pytest.raises(ExportError, match="member wide takes up to 2 rows at once, and was given 3: split them"):
        entry.export_version(qv.Pipeline(whole, **how), max_batch_size=8)
    with pytest.raises(ExportError, match="member wide takes up to 2 rows at once, and was given 5"):
        entry.export_version(qv.Pipeline(whole, **how), sample_inputs={"x": np.ones((5, 8), np.float32)})
    entry.export_version(qv.Pipeline(halved, **how), max_batch_size=8)
    assert entry.version(1).manifest.verification.batch_sizes == (1, 2, 3)


def test_a_fusion_whose_inputs_may_be_left_out(repo: qv.ModelRepository) -> None:
    rows = {name: (TensorProto.FLOAT, ["n", 2]) for name in ("image", "z")}
    other = onnx_model([helper.make_node("Neg", ["image"], ["z"])], {"image": rows["image"]}, {"z": rows["z"]})
    repo.add("mixed").export_version(qv.fuse([scaled(2.0), other], "mixed"))

    def passing(ids: Any, x: Any, *, mixed: Any) -> Any:
        return mixed(model_id=ids, x=x).y

    def computing(x: Any, *, mixed: Any) -> Any:
        return mixed(np.full(len(x), 1, np.int64), x=x).y

    x = np.ones((2, 4), np.float32)
    sample = {"ids": np.array([1, 1]), "x": x}
    repo.add("passing", PIPELINE).export_version(qv.Pipeline(passing, output_names=["y"]), sample_inputs=sample)
    step = repo.models["passing"].config.ensemble_scheduling.step[0]
    assert dict(step.input_map.items()) == {"model_id": "ids", "x": "x"}
    made = qv.Pipeline(computing, inputs=X, output_names=["y"])
    repo.add("computing", PIPELINE).export_version(made, sample_inputs={"x": x})
    assert (made.bind(repo)(x) == 2).all()
    assert [verified(repo, name) for name in ("passing", "computing")] == [3, 1]


def test_rows_that_depend_on_one_another_are_not_batched(repo: qv.ModelRepository) -> None:
    fill(repo, "wide", max_batch_size=8)

    def centred(x: Any, *, wide: Any) -> Any:
        return wide(x - x.mean(axis=0))

    made = qv.Pipeline(centred, inputs={"x": ("FP32", (None, 8))}, output_names=["z"])
    with pytest.raises(ExportError, match="a row's answer depends on the other rows of its batch"):
        repo.add("centred", PIPELINE).export_version(made, max_batch_size=8)


def undeclared(x: Any, *, double: Any) -> Any:
    return double(x + 1)


def failing(x: Any, *, double: Any) -> Any:
    raise RuntimeError(f"no row is good enough, of {len(double(x))}")


def random(x: Any, *, double: Any) -> Any:
    return double(x) + np.random.default_rng().standard_normal(4).astype(np.float32)


def changing(x: Any, *, double: Any) -> Any:
    return double(x) if len(x) > 1 else double(x)[0]


def memberless(x: Any) -> Any:
    return x + 1


X = {"x": ("FP32", (None, 4))}


@pytest.mark.parametrize(
    ("function", "how", "error", "told"),
    [
        (undeclared, {}, InvalidInputError, r"says nothing of its inputs, .* it uses add of input x .*: declare them"),
        (failing, {"inputs": X}, ExportError, "no row is good enough, of 2.*sample_inputs"),
        (random, {"inputs": X}, VerificationError, "another answer each time|does not answer as"),
        (changing, {"inputs": X}, ExportError, "changes its type or its rank with its input"),
        (memberless, {"inputs": X}, InvalidInputError, "calls at least one model"),
        (undeclared, {"inputs": X, "output_names": ["a", "b"]}, InvalidInputError, "returned 1 tensors; the"),
    ],
)  # fmt: skip
def test_what_is_refused_and_leaves_nothing(
    repo: qv.ModelRepository, root: Path, function: Any, how: dict[str, Any], error: type[Exception], told: str
) -> None:
    entry = repo.add("refused", PIPELINE)
    before = str(entry.config)
    with pytest.raises(error, match=told):
        entry.export_version(qv.Pipeline(function, **{"output_names": ["z"], **how}))
    assert (entry.versions, str(entry.config)) == ([], before)
    assert sorted(path.name for path in (root / "refused").iterdir()) == ["config.pbtxt"]


def test_entries_of_models_and_of_pipelines(repo: qv.ModelRepository, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"double is an entry of models, .*--platform pipeline"):
        repo.models["double"].export_version(six)
    entry = repo.add("six", "pipeline")
    with pytest.raises(InvalidInputError, match="six is an entry of pipelines, and a ModelProto is none"):
        entry.export_version(scaled(1.0))
    with pytest.raises(InvalidInputError, match="a pipeline has no graph"):
        entry.export_version(six, opset=12)
    entry.export_version(six)
    with pytest.raises(InvalidInputError, match="six/1 is itself a pipeline"):
        repo.add("more", "pipeline").export_version(
            qv.Pipeline(six.function, output_names=["z"], members={"double": "six"})
        )
    with pytest.raises(InvalidInputError, match="six has itself as its member double, which is a cycle"):
        entry.export_version(qv.Pipeline(six.function, members={"double": "six"}))
    with pytest.raises(InvalidInputError, match="quantize its members"):
        entry.quantize("fp16")
    other = fill(qv.ModelRepository(tmp_path / "other"), "double")
    with pytest.raises(InvalidInputError, match=r"member double is in .*, and the pipeline in .*: copy it there first"):
        entry.export_version(qv.Pipeline(six.function, members={"double": other.models["double"]}))


def test_another_signature_is_refused(repo: qv.ModelRepository) -> None:
    entry = repo.add("six", PIPELINE)
    entry.export_version(six)
    fill(repo, "wide")
    with pytest.raises(InvalidInputError, match="the model's signature is not that of six"):
        entry.export_version(qv.Pipeline(six.function, members={"double": "wide", "triple": "wide"}, inputs={
            "x": ("FP32", (None, 8))}))  # fmt: skip


def test_an_edit_is_republished_with_its_members(repo: qv.ModelRepository) -> None:
    entry = repo.add("repeated", PIPELINE)
    entry.export_version(repeated)
    entry.config.set({"instance_group[0].count": "2"})
    made = entry.republish()
    assert made.manifest.members == entry.version(1).manifest.members
    assert verified(repo, "repeated", 2) == 3


def test_verify_without_the_packages_of_a_pipeline(repo: qv.ModelRepository, tmp_path: Path) -> None:
    """On another machine, a version that is sound."""
    folder = tmp_path / "target"
    (folder / "easy-1.0.dist-info").mkdir(parents=True)
    (folder / "easy-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: easy\nVersion: 1.0\n")
    (folder / "easy-1.0.dist-info/RECORD").write_text("easy.py,,\n")
    (folder / "easy.py").write_text("ONE = 1\n")

    def late(x: Any, *, double: Any) -> Any:
        import easy  # type: ignore[import-not-found]  # noqa: PLC0415

        return double(x) * np.float32(easy.ONE)

    made = qv.Pipeline(late, inputs=X, output_names=["z"], requirements=["easy==1.0  "])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        repo.add("late", PIPELINE).export_version(made)
    sys.modules.pop("easy")
    with pytest.raises(UnavailableError, match=r"late/1: .*No module named 'easy'.*not installed here: easy==1\.0"):
        verified(repo, "late")
    ran = CliRunner().invoke(app, ["verify", str(repo.location), "late"])
    assert isinstance(ran.exception, UnavailableError)
    assert "not verified" in ran.output


def test_what_verify_finds(repo: qv.ModelRepository, root: Path) -> None:
    repo.add("six", PIPELINE).export_version(six)
    manifest = root / "double/1/.manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"exporter": "', '"exporter": "another '))
    with pytest.raises(VerificationError, match=r"double/1, its member double, is another version than"):
        verified(repo, "six")
    manifest.write_text(text)
    assert verified(repo, "six") == 3
    shutil.rmtree(root / "double/1")
    with pytest.raises(VerificationError, match=r"double/1, its member double, is not there"):
        verified(repo, "six")


def test_a_config_that_was_lost_is_healed(repo: qv.ModelRepository, root: Path) -> None:
    for pipeline in (six, repeated):
        entry = repo.add(pipeline.name, PIPELINE)
        entry.export_version(pipeline)
        text = (root / pipeline.name / "config.pbtxt").read_text()
        (root / pipeline.name / "config.pbtxt").write_text(f'name: "{pipeline.name}"\nplatform: "ensemble"\n')
        assert str(qv.ModelRepository(root).models[pipeline.name].config.message) == str(entry.config.message)
        (root / pipeline.name / "config.pbtxt").unlink()
        assert str(qv.ModelRepository(root).models[pipeline.name].config) == text


def test_no_such_member(repo: qv.ModelRepository) -> None:
    def lost(x: Any, *, quadruple: Any) -> Any:
        return quadruple(x)

    repo.add("empty")
    with pytest.raises(NotFoundError, match=r"no entry 'quadruple' .* entries: double, empty, triple"):
        repo.add("lost", PIPELINE).export_version(qv.Pipeline(lost, output_names=["z"]))
    with pytest.raises(NotFoundError, match="empty has no version yet"):
        repo.models["lost"].export_version(
            qv.Pipeline(lost, output_names=["z"], members={"quadruple": repo.models["empty"]})
        )
