"""Whether the Triton of a server takes a version's graph: by the opset and the IR version that the listing tells.

ONNX Runtime refuses a newer opset when the model is loaded. Told before that, it costs no download and no replica.
"""

import re

from gravswell.errors import InvalidInputError, UnsupportedError
from gravswell.serving.contracts import ListedEntry, ListedVersion, Listing
from gravswell.targets import Target, target_of
from gravswell_operator.api import InferenceServer
from gravswell_operator.desired.outcome import Outcome

_RELEASE = re.compile(r"(?:^|/)tritonserver:(\d\d\.\d\d)(?:-py3(?:-igpu)?)?(?:$|@)")
"""NVIDIA's own builds: somebody else's may have another ONNX Runtime."""


def target(server: InferenceServer) -> Target | None:
    """The Triton release that the server runs; None where its image does not say, or names one that never was."""
    named = _RELEASE.search(server.spec.image or "")
    release = server.spec.tag or (named[1] if named is not None else None)
    try:
        return target_of(release) if release is not None else None
    except (InvalidInputError, UnsupportedError):
        return None


def too_new(entry: str, version: ListedVersion, triton: Target | None) -> str:
    """Why ``triton`` cannot load the version, with both numbers; empty where it can, or where nobody says."""
    if triton is None:
        return ""
    for what, has, takes in (
        ("opset", version.opset, triton.opset),
        ("IR version", version.ir_version, triton.ir_version),
    ):
        if has is not None and has > takes:
            return (
                f"version {version.number} of {entry} is of {what} {has}, and {triton} takes up to {what} {takes}: "
                f"give the server a newer tag, or export the model with --target {triton.tag}"
            )
    return ""


def stays_too_new(outcomes: dict[str, Outcome], listing: Listing | None, triton: Target | None) -> tuple[str, ...]:
    """Why ``triton`` cannot load what is served, sentence by sentence: a server must not be given it then."""
    entries = listing.entries if listing is not None else ()
    listed: dict[str, ListedEntry] = {entry.name: entry for entry in entries}
    found = []
    for name, outcome in sorted(outcomes.items()):
        stays = outcome.desired
        if stays is None or name not in listed:
            continue
        same = (v for v in listed[name].versions if (v.number, v.digest) == (stays.version, stays.digest))
        found += [why for version in same if (why := too_new(name, version, triton))]
    return tuple(found)
