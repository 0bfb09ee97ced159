"""What a released Triton takes: the newest opsets and IR version of the ONNX Runtime that NVIDIA's image carries.

Sources: the release that an image carries is in ``docs/introduction/compatibility.md`` of Triton's server repository
(branch r26.08; from 24.04 on), and for older images in ``build.py`` at the release's tag (``TRITON_VERSION_MAP``).
What a release of ONNX Runtime takes was tried on it from 1.9 on, by loading graphs; before that it is the table of
https://onnxruntime.ai/docs/reference/compatibility.html. ``ai.onnx.ml`` counts as far as its operators have kernels:
1.18 to 1.20 read opset 5, and cannot run its ``TreeEnsemble``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from gravswell.errors import InvalidInputError, UnsupportedError

# ONNX Runtime: newest opset of ai.onnx, newest opset of ai.onnx.ml that has kernels, newest IR version
_RUNTIMES: Mapping[str, tuple[int, int, int]] = {
    "1.5": (12, 2, 7),
    "1.6": (13, 2, 7),
    "1.7": (13, 2, 7),
    "1.8": (14, 2, 7),
    "1.9": (15, 2, 8),
    "1.10": (15, 2, 8),
    "1.11": (16, 2, 8),
    "1.12": (17, 3, 8),
    "1.13": (17, 3, 8),
    "1.14": (18, 3, 8),
    "1.15": (18, 3, 9),
    "1.16": (19, 3, 9),
    "1.17": (20, 4, 9),
    "1.18": (21, 4, 10),
    "1.19": (21, 4, 10),
    "1.20": (21, 4, 10),
    "1.21": (22, 5, 10),
    "1.22": (22, 5, 10),
    "1.23": (23, 5, 11),
    "1.24": (25, 5, 13),
    "1.27": (26, 5, 13),
    "1.28": (26, 5, 13),
}

_IMAGES: Mapping[str, tuple[str, ...]] = {
    "1.5.3": ("20.11", "20.12"),
    "1.6.0": ("21.02", "21.03"),
    "1.7.1": ("21.04", "21.05"),
    "1.8.0": ("21.06", "21.07"),
    "1.8.1": ("21.08", "21.09"),
    "1.9.0": ("21.10", "21.11"),
    "1.10.0": ("21.12", "22.01", "22.02", "22.03", "22.04"),
    "1.11.1": ("22.05", "22.06"),
    "1.12.0": ("22.07", "22.08"),
    "1.12.1": ("22.09",),
    "1.13.1": ("22.10", "22.11", "22.12", "23.01", "23.02"),
    "1.14.1": ("23.03", "23.04"),
    "1.15.0": ("23.05", "23.06"),
    "1.15.1": ("23.07", "23.08"),
    "1.16.0": ("23.09", "23.10"),
    "1.16.3": ("23.11", "23.12", "24.01", "24.02"),
    "1.17.2": ("24.03",),
    "1.17.3": ("24.04",),
    "1.18.0": ("24.05", "24.06"),
    "1.18.1": ("24.07", "24.08"),
    "1.19.2": ("24.09", "24.10", "24.11"),
    "1.20.1": ("24.12", "25.01", "25.02"),
    "1.21.0": ("25.03", "25.04"),
    "1.22.0": ("25.05", "25.06", "25.07"),
    "1.23.0": ("25.08", "25.09"),
    "1.23.1": ("25.10",),
    "1.23.2": ("25.11", "25.12", "26.01"),
    "1.24.1": ("26.02",),
    "1.24.2": ("26.03",),
    "1.24.4": ("26.04", "26.05", "26.06"),
    "1.27.0": ("26.07",),
    "1.28.0": ("26.08",),
}

_TAG = re.compile(r"(\d\d\.(?:0[1-9]|1[0-2]))(-[a-z0-9][a-z0-9.-]*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """One Triton release as a place where graphs are to run."""

    tag: str
    """Of NVIDIA's image: year and month, such as ``24.08``."""
    runtime: str
    """Version of its ONNX Runtime."""
    opset: int
    """Newest opset of ONNX's own operators."""
    ml_opset: int
    """Newest opset of ``ai.onnx.ml``."""
    ir_version: int

    def __str__(self) -> str:
        return f"Triton {self.tag} (ONNX Runtime {self.runtime})"

    def limit(self, domain: str) -> int | None:
        """The newest opset of ONNX's ``domain``; None for one that is not ONNX's."""
        return {"": self.opset, "ai.onnx": self.opset, "ai.onnx.ml": self.ml_opset}.get(domain)


@cache
def known_targets() -> Mapping[str, Target]:
    """Every release in the table by its tag, the oldest first."""
    found = {
        tag: Target(tag, runtime, *_RUNTIMES[runtime.rpartition(".")[0]])
        for runtime, tags in _IMAGES.items()
        for tag in tags
    }
    return dict(sorted(found.items()))


def target_of(tag: str) -> Target:
    """The release of that tag: ``24.08``, or with what NVIDIA appends, ``24.08-py3``.

    A release newer than the table takes what the newest in it does, for ONNX Runtime drops nothing. UnsupportedError,
    naming the known ones, for an older one and for one that never was; InvalidInputError for what is no tag.
    """
    known = known_targets()
    oldest, newest = min(known), max(known)
    match = _TAG.fullmatch(tag)
    if match is None:
        raise InvalidInputError(
            f"{tag!r} is no tag of a Triton release: write year and month, from {oldest} to {newest} and newer"
        )
    release = match[1]
    if release in known:
        return known[release]
    if release > newest:
        last = known[newest]
        return Target(release, f"{last.runtime} or newer", last.opset, last.ml_opset, last.ir_version)
    if release < oldest:
        raise UnsupportedError(f"what Triton {release} takes is not known: known are {oldest} to {newest}, and newer")
    near = ", ".join(sorted(sorted(known, key=lambda other: abs(_months(other) - _months(release)))[:2]))
    raise UnsupportedError(f"there was no Triton {release}: the releases next to it are {near}")


def _months(release: str) -> int:
    year, month = release.split(".")
    return 12 * int(year) + int(month)


DEFAULT_TARGET = target_of("24.08")
"""The oldest Triton that an ``InferenceServer`` accepts: what it takes, every newer one does."""
