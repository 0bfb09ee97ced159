"""Keras on torch, which goes through torch's own exporter; and what Keras exports, in the real Triton."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tritonclient.grpc as triton
from keras import layers
from sklearn.datasets import load_digits

from gravswell import quiver as qv
from gravswell.serving.triton import EmbeddedTriton


def test_keras_on_torch(root: Path) -> None:
    script = Path(__file__).with_name("keras_on_torch.py")
    done = subprocess.run([sys.executable, script, root], capture_output=True, text=True, check=True, timeout=550)
    facts = json.loads(done.stdout)
    assert facts["said"]["functional"].startswith(f"keras {keras.__version__} on torch ")
    assert "give their shapes" in facts["said"]["never-built"]
    assert facts["tensorflow"] is False
    repo = qv.ModelRepository(root)
    assert {name: len(entry.versions) for name, entry in repo.models.items()} == {
        "functional": 1,
        "never-built": 0,
    }
    entry = repo.models["functional"]
    assert [(k, r.data_type, r.dims) for k, r in entry.inputs.items()] == [
        ("a", "TYPE_FP32", (-1, 4)),
        ("b", "TYPE_INT32", (-1, 3)),
    ]
    assert [(k, r.data_type, r.dims) for k, r in entry.outputs.items()] == [
        ("kind", "TYPE_FP32", (-1, 2)),
        ("score", "TYPE_FP32", (-1, 1)),
    ]


def test_a_trained_model_is_served(repo: qv.ModelRepository) -> None:
    """A convolutional network of the digits answers from Triton as it does in Keras, in batches that Triton forms."""
    pixels, digits = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.RandomRotation(0.02),
            layers.Conv2D(16, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images[:1500], digits[:1500], epochs=5, verbose=0)
    repo.add("digits").export_version(model, max_batch_size=32)
    with EmbeddedTriton(repo.url) as server, triton.InferenceServerClient(server.grpc_address) as client:
        served = np.concatenate([answer(client, images[k : k + 32]) for k in range(1500, len(images), 32)])
    np.testing.assert_allclose(served, model.predict(images[1500:], verbose=0), rtol=1e-4, atol=1e-5)
    assert (served.argmax(1) == digits[1500:]).mean() > 0.85


def answer(client: triton.InferenceServerClient, images: Any) -> Any:
    given = triton.InferInput("image", images.shape, "FP32")
    given.set_data_from_numpy(images)
    return client.infer("digits", [given]).as_numpy("digit")
