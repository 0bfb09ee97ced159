"""The images that the local node knows: each is a way to start programs that are installed on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from gravswell.errors import UnsupportedError


@dataclass(frozen=True)
class Image:
    """A known image. ``entrypoint`` precedes a container's ``args`` when it gives no ``command``."""

    name: str
    entrypoint: tuple[str, ...]
    needs_triton: bool


GRAVSWELL = Image("gravswell", ("gravswell",), needs_triton=False)
TRITON = Image("tritonserver", (), needs_triton=True)  # NVIDIA's entrypoint runs whatever its arguments say

_BY_NAME = {image.name: image for image in (GRAVSWELL, TRITON)}


class UnknownImageError(UnsupportedError):
    """An image that the local node has no programs for."""


def resolve(reference: str) -> Image:
    """Return the known image that ``reference`` names, by the last part of its repository path, at any tag or digest.

    Raises:
        UnknownImageError: any other image; the message says which ones are known.
    """
    name = reference.split("@", 1)[0].rsplit("/", 1)[-1].split(":", 1)[0]
    image = _BY_NAME.get(name)
    if image is None:
        raise UnknownImageError(
            f"the local node has no container engine and cannot run image {reference!r}: it knows "
            "nvcr.io/nvidia/tritonserver (as the embedded Triton) and ghcr.io/gravswell/gravswell (as this "
            "installation), at any tag; run other images on a cluster with a container engine, such as kind"
        )
    return image


def command_line(image: Image, command: Sequence[str] | None, arguments: Sequence[str] | None) -> list[str]:
    """Return what a container runs, by Kubernetes' rules: ``command`` replaces the entrypoint and its arguments."""
    if command:
        return [*command, *(arguments or ())]
    return [*image.entrypoint, *(arguments or ())]
