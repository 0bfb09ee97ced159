"""RapidOCR's three networks, which find text, turn it upright and read it: imported, served, and read through Triton.

The package's own pipeline runs as it is, once with its networks in this process and once with each of them asked at the
server: heights, widths and batches are those of the text on the page. A pipeline of ours is asked for the whole.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from gravswell import quiver as qv
from gravswell.quiver.importing import import_repository
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import verify_served

from ..serving.triton.conftest import ask
from .conftest import Carried
from .reading import read

NETWORKS = {
    "detection": "ch_PP-OCRv4_det_infer.onnx",
    "direction": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "recognition": "ch_PP-OCRv4_rec_infer.onnx",
}

SHA256 = {
    "detection": "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    "direction": "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    "recognition": "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
}

PHOTOGRAPHS = {
    "page": "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
    "text": "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
}
"""Of scikit-image: a printed page, a little askew, and a line of handwriting. By name, their sha256."""

LINES = ("Every version verifies", "Order 2026-1187", "Total 4,321.50 EUR", "a longer line that is read as one")

Reading = list[tuple[list[list[float]], str, float]]


@pytest.fixture(scope="module")
def package(carried: Carried) -> Path:
    files = {f"rapidocr_onnxruntime/models/{file}": SHA256[name] for name, file in NETWORKS.items()}
    return carried("rapidocr-onnxruntime==1.4.4", files)


@pytest.fixture(scope="module")
def theirs(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks in a repository as their users make one by hand."""
    root = tmp_path_factory.mktemp("theirs")
    for name, file in NETWORKS.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "1/model.onnx").symlink_to(package / "rapidocr_onnxruntime/models" / file)
    return root


@pytest.fixture(scope="module")
def ours(theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same imported, the networks that are given one height at that: the graphs say that they take any."""
    root = tmp_path_factory.mktemp("ours")
    sizes = {"direction": {"x": (None, 3, 48, 192)}, "recognition": {"x": (None, 3, 48, None)}}
    rows = import_repository(theirs, root, input_shapes=sizes)
    assert [(row.entry, row.result, row.message) for row in rows] == [
        (name, "imported", "") for name in sorted(NETWORKS)
    ]
    for entry in qv.ModelRepository(root).models.values():
        entry.config.add_instance_group(count=1)
    network = ort.InferenceSession(root / "recognition/1/model.onnx", providers=["CPUExecutionProvider"])
    alphabet = tmp_path_factory.mktemp("alphabet") / "alphabet.txt"
    alphabet.write_text(network.get_modelmeta().custom_metadata_map["character"], encoding="utf-8")
    pipeline = qv.Pipeline(
        read,
        inputs={"image": ("UINT8", (None, None, 3))},
        outputs={"boxes": ("FP32", (None, 4, 2)), "texts": ("STRING", (None,)), "scores": ("FP32", (None,))},
        assets={"alphabet": alphabet},
        access="public",
    )
    reader = qv.ModelRepository(root).add("reader", qv.Platform.PIPELINE)
    reader.export_version(pipeline, sample_inputs={"image": _page()})
    return root


@pytest.fixture(scope="module")
def server(ours: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(ours) as server:
        yield server


@pytest.fixture(scope="module")
def reader(package: Path) -> Iterator[Callable[[], Any]]:
    """Makes a pipeline of the package's own."""
    sys.path.insert(0, str(package))
    try:
        from rapidocr_onnxruntime import RapidOCR  # noqa: PLC0415 - it is on the path only now

        yield RapidOCR
    finally:
        sys.path.remove(str(package))


@pytest.fixture(scope="module")
def photographs(carried: Carried) -> dict[str, NDArray[np.uint8]]:
    """Pictures that somebody took."""
    files = {f"skimage/data/{name}.png": sha256 for name, sha256 in PHOTOGRAPHS.items()}
    folder = carried("scikit-image==0.25.2", files)
    taken = {name: np.asarray(Image.open(folder / f"skimage/data/{name}.png").convert("RGB")) for name in PHOTOGRAPHS}
    taken["china"] = load_sample_image("china.jpg")
    return {name: picture[..., ::-1].copy() for name, picture in taken.items()}


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


def _read(pipeline: Any, page: NDArray[np.uint8]) -> Reading:
    found, _ = pipeline(page)
    return [(np.asarray(box).tolist(), text, float(score)) for box, text, score in found or ()]


@pytest.mark.parametrize("upside_down", [False, True])
def test_the_page_reads_the_same_through_triton(
    server: EmbeddedTriton, reader: Callable[[], Any], upside_down: bool
) -> None:
    page = _page(upside_down=upside_down)
    here = _read(reader(), page)
    assert {"".join(text.split()) for _, text, _ in here} == {"".join(line.split()) for line in LINES}
    pipeline = reader()
    asked = {name: _Asked(server, name) for name in NETWORKS}
    pipeline.text_det.infer = asked["detection"]
    pipeline.text_cls.infer = asked["direction"]
    pipeline.text_rec.session = asked["recognition"]
    there = _read(pipeline, page)
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
    alphabet = (ours / "recognition/1/model.onnx").read_bytes()
    assert b"character" in alphabet, "the model's notes stay with it"


async def test_they_verify_on_the_server(ours: Path, server: EmbeddedTriton) -> None:
    found = [row async for row in verify_served(RepositoryReader(ours), server.http_address, sorted(NETWORKS))]
    assert [(row.entry, row.result, row.samples) for row in found] == [
        (name, "verified", 3) for name in sorted(NETWORKS)
    ]


def test_a_picture_goes_in_and_boxes_texts_and_scores_come_out(
    server: EmbeddedTriton, reader: Callable[[], Any], photographs: dict[str, NDArray[np.uint8]]
) -> None:
    """Of one entry, by gRPC and by REST; what the package itself finds in the same pictures, which may be nothing."""
    theirs = reader()
    drawn = [(_page(), len(LINES)), (_page(upside_down=True), len(LINES))]
    taken = [(photographs["page"], 5), (photographs["text"], 2), (photographs["china"], 0)]
    for picture, lines in (*drawn, *taken):
        expected = _read(theirs, picture)
        assert len(expected) == lines
        by_grpc = ask(server.grpc_address, "reader", image=picture)
        with Client(server.http_address) as client:
            by_rest = client.request("reader", {"image": picture}).outputs
        for ours in (by_grpc, by_rest):
            assert [text.decode() for text in ours["texts"]] == [text for _, text, _ in expected]
            assert ours["boxes"].shape == (lines, 4, 2)
            assert ours["boxes"].tolist() == [box for box, *_ in expected]
            np.testing.assert_allclose(ours["scores"], [score for *_, score in expected], atol=1e-4)
