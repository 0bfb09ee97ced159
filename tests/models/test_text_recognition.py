"""RapidOCR's three networks, which find text, turn it upright and read it: imported, served, and read through Triton.

The package's own pipeline runs as it is, once with its networks in this process and once with each of them asked at the
server: heights, widths and batches are those of the text on the page. A pipeline of ours is asked for the whole.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from gravswell import quiver as qv
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import verify_served

from ..serving.triton.conftest import ask
from .ocr import NETWORKS, alphabet, hand_made, imported, own_pipelines, own_reading, photographs, publish_reader

LINES = ("Every version verifies", "Order 2026-1187", "Total 4,321.50 EUR", "a longer line that is read as one")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hand_made(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def ours(theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ours")
    rows = imported(theirs, root)
    assert [(row.entry, row.result, row.message) for row in rows] == [
        (name, "imported", "") for name in sorted(NETWORKS)
    ]
    publish_reader(root, _page(), alphabet(tmp_path_factory.mktemp("alphabet")))
    return root


@pytest.fixture(scope="module")
def server(ours: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(ours) as server:
        yield server


@pytest.fixture(scope="module")
def reader() -> Iterator[Callable[[], Any]]:
    """Makes a pipeline of the package's own."""
    with own_pipelines() as made:
        yield made


@pytest.fixture(scope="module")
def pictures() -> dict[str, NDArray[np.uint8]]:
    """Pictures that somebody took; one shows no text."""
    return photographs() | {"china": load_sample_image("china.jpg")[..., ::-1].copy()}


class _Asked:
    """In place of a network of the package: the same one, at the server."""

    def __init__(self, server: EmbeddedTriton, entry: str) -> None:
        self._server, self._entry = server, entry
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self.shapes.append(batch.shape)
        return list(ask(self._server.grpc_address, self._entry, x=batch).values())


def _page(*, upside_down: bool = False) -> NDArray[np.uint8]:
    page = Image.new("RGB", (560, 400), "white")
    draw = ImageDraw.Draw(page)
    for k, line in enumerate(LINES):
        draw.text((30, 40 + 85 * k), line, "black", font=ImageFont.load_default(32))
    return np.asarray(page.rotate(180) if upside_down else page)


@pytest.mark.parametrize("upside_down", [False, True])
def test_the_page_reads_the_same_through_triton(
    server: EmbeddedTriton, reader: Callable[[], Any], upside_down: bool
) -> None:
    page = _page(upside_down=upside_down)
    here = own_reading(reader(), page)
    assert {"".join(text.split()) for _, text, _ in here} == {"".join(line.split()) for line in LINES}
    pipeline = reader()
    asked = {name: _Asked(server, name) for name in NETWORKS}
    pipeline.text_det.infer = asked["detection"]
    pipeline.text_cls.infer = asked["direction"]
    pipeline.text_rec.session = asked["recognition"]
    there = own_reading(pipeline, page)
    assert [(box, text) for box, text, _ in there] == [(box, text) for box, text, _ in here]
    np.testing.assert_allclose([score for *_, score in there], [score for *_, score in here], atol=1e-4)
    assert all(network.shapes for network in asked.values())
    width = asked["recognition"].shapes[0][3]
    assert width not in (32, 64), "no size that it was proved at"


def test_what_was_proved_is_recorded(ours: Path) -> None:
    models = qv.ModelRepository(ours).models
    proved = {name: models[name].versions[0].manifest.verification for name in NETWORKS}
    shapes = {name: [shape["x"] for shape in verification.shapes] for name, verification in proved.items()}
    assert shapes == {
        "detection": [(2, 3, 32, 32), (1, 3, 64, 64), (5, 3, 32, 32)],
        "direction": [(2, 3, 48, 192), (1, 3, 48, 192), (5, 3, 48, 192)],
        "recognition": [(2, 3, 48, 32), (1, 3, 48, 64), (5, 3, 48, 32)],
    }
    assert models["detection"].inputs["x"].dims == (-1, 3, -1, -1)
    network = (ours / "recognition/1/model.onnx").read_bytes()
    assert b"character" in network, "the model's notes stay with it"


async def test_they_verify_on_the_server(ours: Path, server: EmbeddedTriton) -> None:
    found = [row async for row in verify_served(RepositoryReader(ours), server.http_address, sorted(NETWORKS))]
    assert [(row.entry, row.result, row.samples) for row in found] == [
        (name, "verified", 3) for name in sorted(NETWORKS)
    ]


def test_a_picture_goes_in_and_boxes_texts_and_scores_come_out(
    server: EmbeddedTriton, reader: Callable[[], Any], pictures: dict[str, NDArray[np.uint8]]
) -> None:
    """Of one entry, by gRPC and by REST; what the package itself finds in the same pictures, which may be nothing."""
    theirs = reader()
    drawn = [(_page(), len(LINES)), (_page(upside_down=True), len(LINES))]
    taken = [(pictures["page"], 5), (pictures["text"], 2), (pictures["china"], 0)]
    for picture, lines in (*drawn, *taken):
        expected = own_reading(theirs, picture)
        assert len(expected) == lines
        by_grpc = ask(server.grpc_address, "reader", image=picture)
        with Client(server.http_address) as client:
            by_rest = client.request("reader", {"image": picture}).outputs
        for ours in (by_grpc, by_rest):
            assert [text.decode() for text in ours["texts"]] == [text for _, text, _ in expected]
            assert ours["boxes"].shape == (lines, 4, 2)
            assert ours["boxes"].tolist() == [box for box, *_ in expected]
            np.testing.assert_allclose(ours["scores"], [score for *_, score in expected], atol=1e-4)


def test_what_reads_leaves_the_environment_as_it_was() -> None:
    """All programs that this process starts later have it."""
    reading = str(Path(__file__).with_name("reading.py"))
    code = f"import os, runpy; was = dict(os.environ); runpy.run_path({reading!r}); assert dict(os.environ) == was"
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)
