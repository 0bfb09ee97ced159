"""What the ONNX Runtime of one Triton takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gravswell.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Limits:
    """Newest opset of each ONNX domain (``""`` is ONNX's own), and newest IR version."""

    tag: str
    opsets: Mapping[str, int] = field(default_factory=dict)
    ir_version: int = 0


def limits_of(tag: str) -> Limits:
    """The limits of NVIDIA's image of that tag, such as ``24.08``. UnsupportedError where they are not known."""
    from gravswell.quiver.exporters.base import MAX_IR, MAX_OPSETS  # noqa: PLC0415 - that package imports ONNX

    if tag.removesuffix("-py3") != "24.08":
        raise UnsupportedError(
            f"what the ONNX Runtime of Triton {tag!r} takes is not known here: known is 24.08, whose limits hold for "
            f"every newer one too"
        )
    return Limits(tag, MAX_OPSETS, MAX_IR)
