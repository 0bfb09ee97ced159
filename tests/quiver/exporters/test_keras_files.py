"""Files of Keras models on TensorFlow: those that are read, and the graph that comes of one, byte for byte."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import onnx
import pytest
from keras import layers

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError

from .keras_models import sequential
from .signatures import shapes


def test_a_saved_model_is_loaded(entry: qv.Entry, tmp_path: Path, root: Path) -> None:
    model = sequential(layers.Dense(2, name="y"))
    model.save(tmp_path / "model.keras")
    proto = Path(entry.export_version(tmp_path / "model.keras")).read_bytes()
    assert Path(entry.export_version(model)).read_bytes() == proto


def test_code_in_a_saved_model_is_not_run(entry: qv.Entry, tmp_path: Path) -> None:
    sequential(layers.Lambda(lambda x: x + 1)).save(tmp_path / "model.keras")
    with pytest.raises(ExportError, match=r"model\.keras .*load it where they are known"):
        entry.export_version(tmp_path / "model.keras")
    assert entry.versions == []


def test_the_same_model_is_the_same_file(entry: qv.Entry) -> None:
    """Although the converter's own names count what it has converted, and sets of them have no order."""
    model = sequential(layers.Bidirectional(layers.LSTM(3)), layers.BatchNormalization(), shape=(5, 4))
    files = {Path(entry.export_version(model)).read_bytes() for _ in range(3)}
    assert len(files) == 1


def test_files_of_the_older_format(entry: qv.Entry, tmp_path: Path) -> None:
    model = sequential(layers.Dense(3, name="y"))
    model.save(tmp_path / "m.h5")
    entry.export_version(tmp_path / "m.h5")
    assert (shapes(entry.inputs), shapes(entry.outputs)) == (
        {"x": ("TYPE_FP32", (-1, 4))},
        {"y": ("TYPE_FP32", (-1, 3))},
    )
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(InvalidInputError, match="holds weights alone"):
        entry.export_version(tmp_path / "m.weights.h5")
    (tmp_path / "m.keras").write_bytes(b"cut")
    with pytest.raises(InvalidInputError, match=r"m.keras is no .keras file, which is a zip"):
        entry.export_version(tmp_path / "m.keras")
    sequential(layers.Lambda(lambda x: x * 2, name="y")).save(tmp_path / "code.h5")
    with pytest.raises(ExportError, match=r"Keras does not load.*lambdas"):
        entry.export_version(tmp_path / "code.h5")


_EXPORTED = """
import sys
from gravswell import quiver as qv
print(qv.ModelRepository(sys.argv[1]).add("m").export_version(sys.argv[2]))
"""


def test_the_same_model_is_the_same_file_in_another_process(entry: qv.Entry, tmp_path: Path) -> None:
    """Whose sets of names have another order."""
    x = keras.Input((6, 4), name="x")
    inner = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    both = [layers.Bidirectional(layers.LSTM(n), name=f"y{n}")(inner) for n in (2, 3)]
    saved = tmp_path / "saved.keras"
    keras.Model(x, both).save(saved)
    done = subprocess.run(
        [sys.executable, "-c", _EXPORTED, tmp_path / "other", saved],
        env=os.environ | {"PYTHONHASHSEED": "7", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=550,
    )
    there = Path(done.stdout.split()[-1])
    assert there.read_bytes() == Path(entry.export_version(saved)).read_bytes()


def test_what_the_graph_says_of_itself(entry: qv.Entry) -> None:
    """Nothing of this machine, no counters of the process, and what the oldest servers take."""
    model = sequential(layers.Conv1D(3, 2), layers.GlobalMaxPooling1D(), shape=(None, 4))
    graph = onnx.load(entry.export_version(model))
    assert {o.domain: o.version for o in graph.opset_import}[""] <= 18
    assert [d.dim_param for d in graph.graph.input[0].type.tensor_type.shape.dim][:2] == ["batch", "x_1"]
    text = str(graph)
    assert "__" not in text
    assert str(Path.cwd()) not in text
    assert "inference_served" not in text
