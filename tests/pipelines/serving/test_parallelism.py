"""Noise removal, then a classifier: models of two frameworks as one ensemble, each with instances of its own."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from tritonclient.grpc import InferenceServerClient

from gravswell import quiver as qv
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton

INSTANCES = {"denoise": 1, "classify": 3}


class Denoise(torch.nn.Module):
    """Faint pixels are noise."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(image - 3) / 13


@qv.pipeline(output_names=["label", "probabilities"])
def clean(image, *, denoise, classify):
    label, probabilities = classify(denoise(image))
    return label, probabilities


@pytest.fixture(scope="module")
def classifier() -> LogisticRegression:
    images, labels = load_digits(return_X_y=True)
    return LogisticRegression(max_iter=300).fit(_denoised(images.astype(np.float32)), labels)


def _denoised(images: Any) -> Any:
    return Denoise()(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="module")
def server(classifier: LogisticRegression, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    repository = qv.ModelRepository(tmp_path_factory.mktemp("parallelism") / "r")
    repository.add("denoise").export_version(Denoise(), {"image": (None, 64)}, ["image_"], max_batch_size=64)
    repository.add("classify").export_version(classifier, {"image_": (None, 64)}, max_batch_size=64)
    for name, count in INSTANCES.items():
        repository.models[name].config.add_instance_group(count=count)
    repository.add("clean", qv.Platform.PIPELINE).export_version(clean, max_batch_size=64)
    with EmbeddedTriton(repository.url) as server:
        yield server


def test_each_member_has_as_many_instances_as_its_entry_says(server: EmbeddedTriton) -> None:
    found = {}
    with InferenceServerClient(server.grpc_address) as client:
        for name, told in server.members.items():
            (group,) = client.get_model_config(name).config.instance_group
            found[told.partition("/")[0]] = group.count
    assert found == INSTANCES


def test_requests_in_flight_are_answered_as_the_frameworks_do(
    server: EmbeddedTriton, classifier: LogisticRegression
) -> None:
    images = load_digits().data.astype(np.float32)[:1000]
    with Client(server.http_address) as client:
        answers = client.infer("clean", {"image": images}, batch_size=8)
    expected = classifier.predict_proba(_denoised(images))
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(answers["label"].ravel(), classifier.predict(_denoised(images)))
