"""RapidOCR: the package, pictures for it, and a repository with its three networks and the pipeline over them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from gravswell import quiver as qv
from gravswell.quiver.importing import import_repository

from .carrying import carried_by
from .reading import read

PACKAGE = "rapidocr-onnxruntime==1.4.4"

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

Reading = list[tuple[list[list[float]], str, float]]
"""The lines of a picture: corners, text and score."""


def package() -> Path:
    """The folder that the package is in."""
    return carried_by(PACKAGE, {f"rapidocr_onnxruntime/models/{file}": SHA256[name] for name, file in NETWORKS.items()})


def network(name: str) -> Path:
    """The file of one of :data:`NETWORKS`."""
    return package() / "rapidocr_onnxruntime/models" / NETWORKS[name]


@contextmanager
def own_pipelines() -> Iterator[Callable[..., Any]]:
    """Makes pipelines of the package's own."""
    folder = str(package())
    sys.path.insert(0, folder)
    try:
        from rapidocr_onnxruntime import RapidOCR  # noqa: PLC0415 - it is on the path only now

        yield RapidOCR
    finally:
        sys.path.remove(folder)


def own_reading(pipeline: Any, picture: NDArray[np.uint8]) -> Reading:
    """What a pipeline of the package's own finds, which may be nothing."""
    found, _ = pipeline(picture)
    return [(np.asarray(box).tolist(), text, float(score)) for box, text, score in found or ()]


def photographs() -> dict[str, NDArray[np.uint8]]:
    """Pictures that somebody took, BGR as the package has them."""
    files = {f"skimage/data/{name}.png": sha256 for name, sha256 in PHOTOGRAPHS.items()}
    folder = carried_by("scikit-image==0.25.2", files)
    taken = {name: np.asarray(Image.open(folder / f"skimage/data/{name}.png").convert("RGB")) for name in PHOTOGRAPHS}
    return {name: picture[..., ::-1].copy() for name, picture in taken.items()}


def hand_made(root: Path) -> Path:
    """The networks in a repository as their users make one by hand."""
    for name in NETWORKS:
        (root / name / "1").mkdir(parents=True)
        (root / name / "1/model.onnx").symlink_to(network(name))
    return root


def alphabet(folder: Path) -> Path:
    """A file with the characters that the recognition tells apart, which it carries in its notes."""
    session = ort.InferenceSession(network("recognition"), providers=["CPUExecutionProvider"])
    path = folder / "alphabet.txt"
    path.write_text(session.get_modelmeta().custom_metadata_map["character"], encoding="utf-8")
    return path


def imported(theirs: Path, root: Path) -> list[Any]:
    """Import the networks of ``theirs`` into ``root``, one instance each; a row for each.

    Those that are given one height are proved at that: the graphs say that they take any.
    """
    sizes = {"direction": {"x": (None, 3, 48, 192)}, "recognition": {"x": (None, 3, 48, None)}}
    rows = list(import_repository(theirs, root, input_shapes=sizes))
    for entry in qv.ModelRepository(root).models.values():
        entry.config.add_instance_group(count=1)
    return rows


def publish_reader(root: Path, sample: NDArray[np.uint8], characters: Path) -> None:
    """Publish the pipeline ``reader`` beside its networks, proved with ``sample``; ``characters`` is the alphabet."""
    pipeline = qv.Pipeline(
        read,
        inputs={"image": ("UINT8", (None, None, 3))},
        outputs={"boxes": ("FP32", (None, 4, 2)), "texts": ("STRING", (None,)), "scores": ("FP32", (None,))},
        assets={"alphabet": characters},
        access="public",
    )
    reader = qv.ModelRepository(root).add("reader", qv.Platform.PIPELINE)
    reader.export_version(pipeline, sample_inputs={"image": sample})
