"""The library: repositories of verified model versions. ``from gravswell import quiver as qv``.

Its law is the order of its layers: repository → entry → {stores | exporters} → {layout, config} → platform → errors.
ONNX and frameworks are imported only inside :mod:`gravswell.quiver.exporters`, which is imported when it is used.

What is done to one entry is a method of :class:`Entry`. What is done to whole repositories, or between two, is here:
:class:`Transfer` (``copy`` and ``sync``), :func:`import_repository`, :func:`compare_versions` (``diff``),
:func:`verify_version`, and in :mod:`qv.lint <gravswell.quiver.lint>` the function of that name. :func:`place` gives
models devices, and :func:`write_layout` writes them into entries.

Many models as one graph are :func:`fuse`'s, exported like one. Many as one pipeline are written with :func:`pipeline`
(:mod:`gravswell.pipelines`), which stands on this package and is imported when it is asked for; :func:`partition`
(:mod:`gravswell.partitions`) cuts one model for many ranks, likewise.
"""

from typing import TYPE_CHECKING, Any

from gravswell.placement import Layout, place
from gravswell.quiver import lint
from gravswell.quiver.comparison import Comparison, Side, compare_versions
from gravswell.quiver.entry import Entry
from gravswell.quiver.fusion import Fusion, ModelInfo, fuse
from gravswell.quiver.importing import Imported, import_repository
from gravswell.quiver.placing import write_layout
from gravswell.quiver.platform import Platform
from gravswell.quiver.prune import Pruning, Verdict
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.repository import ModelRepository
from gravswell.quiver.state import Move
from gravswell.quiver.transfer import Transfer
from gravswell.quiver.verification import Verified, verify_version
from gravswell.quiver.version import Version

if TYPE_CHECKING:
    from gravswell.partitions import Partition, partition
    from gravswell.pipelines import Pipeline, pipeline

__all__ = [
    "Comparison",
    "Entry",
    "Fusion",
    "Imported",
    "Layout",
    "ModelInfo",
    "ModelRepository",
    "Move",
    "Partition",
    "Pipeline",
    "Platform",
    "Pruning",
    "RepositoryReader",
    "Side",
    "Transfer",
    "Verdict",
    "Verified",
    "Version",
    "compare_versions",
    "fuse",
    "import_repository",
    "lint",
    "partition",
    "pipeline",
    "place",
    "verify_version",
    "write_layout",
]


def __getattr__(name: str) -> Any:
    if name in ("Pipeline", "pipeline"):
        from gravswell import pipelines  # noqa: PLC0415 - it stands on this package

        return getattr(pipelines, name)
    if name in ("Partition", "partition"):
        from gravswell import partitions  # noqa: PLC0415 - likewise

        return getattr(partitions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
