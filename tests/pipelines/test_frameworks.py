"""The notebook's ensemble: noise removal in one framework, a classifier in another, each with its own instances."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from gravswell import quiver as qv
from gravswell.quiver.golden import load_golden
from gravswell.quiver.reader import RepositoryReader


class Smooth(torch.nn.Module):
    """Each pixel of an 8 by 8 image with its neighbours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x.reshape(-1, 1, 8, 8), 3, stride=1, padding=1).reshape(-1, 64)


def test_noise_removal_and_a_classifier(root: Path) -> None:
    digits, labels = load_digits(return_X_y=True)
    images = digits.astype(np.float32)
    noisy = images + np.random.default_rng(1).normal(0, 2, images.shape).astype(np.float32)
    smooth = Smooth()
    classifier = LogisticRegression(max_iter=200, tol=0.1).fit(smooth(torch.from_numpy(noisy)).numpy(), labels)
    repo = qv.ModelRepository(root)
    repo.add("denoise").export_version(smooth, {"x": (None, 64)}, ["y"], max_batch_size=64)
    repo.models["denoise"].config.add_instance_group(count=2, kind="cpu")
    repo.add("digits").export_version(classifier, sample_inputs=[{"x": images[:16]}], max_batch_size=64)

    @qv.pipeline(members={"classify": "digits"})
    def read(noisy: Any, *, denoise: Any, classify: Any) -> dict[str, Any]:
        found = classify(denoise(noisy))
        return {"digit": found.label, "scores": found.probabilities}

    entry = repo.add("read", qv.Platform.PIPELINE)
    entry.export_version(read, sample_inputs={"noisy": noisy[:16]}, max_batch_size=32)
    assert (entry.outputs["digit"].data_type, entry.outputs["scores"].dims) == ("TYPE_INT64", (-1, 10))
    reader = RepositoryReader(root)
    assert qv.verify_version(reader, "read", 1).samples == 4
    golden = load_golden(root / "read/1/.golden.npz")
    whole = next(sample for sample in golden if len(sample.inputs["noisy"]) == 16)
    with torch.no_grad():
        wanted = classifier.predict(smooth(torch.from_numpy(noisy[:16])).numpy())
    assert whole.outputs["digit"].tolist() == [[label] for label in wanted], "as servers have one number for each row"
