"""What can be published that is no model of a framework but is made of entries."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravswell.quiver.fetching import Progress
from gravswell.quiver.manifest import Signature
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.request import Shapes

if TYPE_CHECKING:
    from gravswell.quiver.exporters import Built


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked of an export, and what the entry says already."""

    entry: str
    stated: Signature | None
    """The tensors of the entry's newest version."""
    input_shapes: Shapes | None
    input_types: Mapping[str, str]
    """Triton's types, by input."""
    output_names: tuple[str, ...] | None
    samples: tuple[Mapping[str, Any], ...]
    max_batch_size: int
    """0: the server forms no batches."""
    rtol: float | None
    atol: float | None
    stage: Callable[[str], None]
    progress: Progress | None


class Composite(ABC):
    """Something made of entries of one repository, such as a pipeline."""

    @abstractmethod
    def build(self, reader: RepositoryReader, folder: Path, wishes: Wishes) -> "Built":
        """Write a version's files into ``folder``, proved. ``reader`` reads the repository that it is published in."""
