"""The notebook's bucket cells as they stand (seeds A 5), where ``STORAGE_EMULATOR_HOST`` names the emulator."""

from collections.abc import Iterator

import pytest
from google.cloud import storage

from gravswell import quiver as qv
from gravswell import utils

from .emulators import Server

INPUT_SIZE, HIDDEN_SIZES = 64, [256, 128, 64]
BUCKET = "ligo-quiver-demo"


@pytest.fixture
def demo_bucket(google: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[storage.Bucket]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.endpoint)
    google.make_bucket(BUCKET)
    bucket = storage.Client().bucket(BUCKET)
    yield bucket
    bucket.delete(force=True)


def ls(bucket: storage.Bucket, folder: str) -> list[str]:
    """What ``gsutil ls`` prints of a folder: its objects, then its folders."""
    found = bucket.list_blobs(prefix=f"{folder}/", delimiter="/")
    names = [blob.name for blob in found]
    return [f"gs://{bucket.name}/{name}" for name in (*names, *sorted(found.prefixes))]


def test_cells_18_and_19(demo_bucket: storage.Bucket) -> None:
    inference_model = utils.MLP(INPUT_SIZE, HIDDEN_SIZES)

    repo = qv.ModelRepository("gs://ligo-quiver-demo")
    entry = repo.add("my-model", platform=qv.Platform.ONNX)
    entry.config.add_instance_group(count=4)
    export_path = entry.export_version(
        inference_model,
        input_shapes={"x": (None, INPUT_SIZE)},
        output_names=["y"],
    )
    assert export_path == "gs://ligo-quiver-demo/my-model/1/model.onnx"
    assert ls(demo_bucket, "my-model") == [
        "gs://ligo-quiver-demo/my-model/config.pbtxt",
        "gs://ligo-quiver-demo/my-model/1/",
    ]
    config = demo_bucket.blob("my-model/config.pbtxt").download_as_text()
    assert config == str(entry.config)
    assert "count: 4\n  kind: KIND_GPU" in config

    repo.delete()
    assert demo_bucket.exists()
    assert list(demo_bucket.list_blobs()) == []
