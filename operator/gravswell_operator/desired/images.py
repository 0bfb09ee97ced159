"""Which Triton image a server runs, and why one is refused."""

import re

from gravswell_operator import names
from gravswell_operator.api import InferenceServer
from gravswell_operator.conditions import Reason
from gravswell_operator.state import Problem

_REFERENCE = re.compile(
    r"^(?P<repository>[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>[a-z0-9]+:[0-9a-f]{32,}))?$"
)
_RELEASE = re.compile(r"^(?P<year>[0-9]{2})\.(?P<month>0[1-9]|1[0-2])(-|$)")


def triton_image(server: InferenceServer, repository: str) -> str:
    """The image of the server's Triton container; ``repository`` is where NVIDIA's are."""
    if server.spec.image is not None:
        return server.spec.image
    return f"{repository}:{server.spec.tag}-py3"


def image_problem(image: str) -> Problem | None:
    """Why ``image`` cannot be used, or None.

    A tag that is a Triton release (``24.08``, ``24.08-py3``) is checked for its age; an image under another tag is
    its owner's word that it is new enough.
    """
    match = _REFERENCE.match(image)
    if match is None:
        return Problem(
            Reason.INVALID_IMAGE,
            f"{image!r} is not an image reference; write REGISTRY/NAME:TAG, or set tag to a Triton release",
        )
    release = _RELEASE.match(match["tag"] or "")
    if release is None or (int(release["year"]), int(release["month"])) >= names.OLDEST_TRITON:
        return None
    oldest = ".".join(f"{part:02}" for part in names.OLDEST_TRITON)
    return Problem(
        Reason.IMAGE_TOO_OLD,
        f"{image} is Triton {release['year']}.{release['month']}, which cannot close its control APIs to clients; "
        f"use {oldest} or newer",
    )
