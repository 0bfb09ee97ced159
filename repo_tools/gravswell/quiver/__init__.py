"""The library: repositories of verified model versions. ``from gravswell import quiver as qv``.

Its law is the order of its layers: repository → entry → {stores | exporters} → {layout, config} → platform → errors.
ONNX and frameworks are imported only inside :mod:`gravswell.quiver.exporters`, which is imported when it is used.
"""

from gravswell.quiver.entry import Entry
from gravswell.quiver.platform import Platform
from gravswell.quiver.prune import Pruning, Verdict
from gravswell.quiver.repository import ModelRepository
from gravswell.quiver.state import Move
from gravswell.quiver.version import Version

__all__ = ["Entry", "ModelRepository", "Move", "Platform", "Pruning", "Verdict", "Version"]
