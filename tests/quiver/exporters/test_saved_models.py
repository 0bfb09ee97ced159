"""Folders that TensorFlow wrote: exported by the names of their signature, and refused where it says too little."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import pytest
import tensorflow as tf
from keras import layers

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError

from ...commands import Run, run
from .refusing import check_refusal

__all__ = ["run"]


class Scaled(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """Two inputs of two types, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(np.arange(8, dtype=np.float32).reshape(4, 2))

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec([None, 4], tf.float32, name="x"),
            tf.TensorSpec([None, 1], tf.int64, name="times"),
        ]
    )
    def both(self, x: Any, times: Any) -> dict[str, Any]:
        y = x @ self.weight
        return {"y": y * tf.cast(times, tf.float32), "sum": tf.reduce_sum(y, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def shapeless(self, x: Any) -> dict[str, Any]:
        return {"y": x * self.weight[0, 1]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved")
    scaled = Scaled()
    tf.saved_model.save(scaled, str(root / "both"), signatures=scaled.both)
    tf.saved_model.save(scaled, str(root / "shapeless"), signatures=scaled.shapeless)
    tf.saved_model.save(scaled, str(root / "other"), signatures={"other": scaled.both})
    (root / "damaged").mkdir()
    (root / "damaged/saved_model.pb").write_bytes(b"garbage")
    (root / "empty").mkdir()
    return root


def test_a_signature_of_several_inputs_and_outputs(entry: qv.Entry, folders: Path) -> None:
    path = entry.export_version(folders / "both")
    assert {name: (r.data_type, r.dims) for name, r in entry.inputs.items()} == {
        "times": ("TYPE_INT64", (-1, 1)),
        "x": ("TYPE_FP32", (-1, 4)),
    }
    x, times = np.ones((3, 4), np.float32), np.array([[1], [2], [3]])
    y, total = ort.InferenceSession(path).run(["y", "sum"], {"x": x, "times": times})
    assert (y.tolist(), total.tolist()) == ([[12, 16], [24, 32], [36, 48]], [28, 28, 28])
    assert entry.versions[-1].manifest.framework == f"tensorflow {tf.__version__}"
    entry.export_version(str(folders / "both"))


def test_what_keras_exports(entry: qv.Entry, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, activation="relu"), layers.Dense(2)])
    model.export(tmp_path / "served", verbose=False)
    path = entry.export_version(tmp_path / "served", {"x": (None, 4)}, ["y"])
    x = np.random.default_rng(0).random((3, 4), np.float32)
    (y,) = ort.InferenceSession(path).run(["y"], {"x": x})
    np.testing.assert_allclose(y, model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("folder", "arguments", "error", "fact"),
    [
        ("shapeless", {}, ExportError, "input 'x' .* any number of dimensions"),
        ("other", {}, InvalidInputError, "no signature 'serving_default', but other"),
        ("damaged", {}, InvalidInputError, "TensorFlow does not load"),
        ("both", {"input_shapes": {"x": (None, 5)}}, InvalidInputError, r"input 'x' is TYPE_FP32 \[-1, 4\]"),
        ("both", {"input_shapes": {"z": (None, 4)}}, InvalidInputError, "no input 'z'; its inputs: times, x"),
        ("empty", {}, InvalidInputError, "is a folder, and no SavedModel"),
    ],
)
def test_refuses(
    entry: qv.Entry,
    root: Path,
    folders: Path,
    folder: str,
    arguments: dict[str, Any],
    error: type[Exception],
    fact: str,
) -> None:
    check_refusal(entry, root, folders / folder, arguments, error, fact)


def test_a_folder_is_fused_as_it_is_exported(run: Run, folders: Path) -> None:
    shown = run("fuse", f"{folders}/both,2", "--output", "json")
    assert shown.code == 0, shown.err
    assert [(model["name"], model["copyOf"]) for model in shown.data["models"]] == [("both", None), ("both", 1)]
    assert qv.fuse([folders / "both"]).ids == {1: "both"}
