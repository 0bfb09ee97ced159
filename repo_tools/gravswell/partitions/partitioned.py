"""What comes of a model that was cut: its parts, to be looked at, saved, or published."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import onnx

from gravswell.errors import ConflictError
from gravswell.partitions.chain import Chain
from gravswell.partitions.publishing import publish
from gravswell.partitions.records import PUBLISHED_FILE, PartRecord, Plan, Published, RankManifest, encoded, manifest_of
from gravswell.quiver.composition.config import Access
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.exporters import Stage
from gravswell.quiver.golden import Sample
from gravswell.quiver.manifest import OutputError
from gravswell.quiver.repository import ModelRepository

PARTS_FOLDER = "parts"
"""Where the parts lie with their documents, in the folder that a partition holds."""


class Partition:
    """A model in parts, proved to answer as the whole does. Its files go when it is closed, or no longer used."""

    def __init__(
        self,
        plan: Plan,
        held: "tempfile.TemporaryDirectory[str]",
        samples: list[Sample],
        errors: Mapping[str, OutputError],
        tolerances: tuple[float | None, float | None] = (None, None),
    ) -> None:
        self.plan = plan
        """Who holds what, and what goes from whom to whom."""
        self.samples = samples
        """The batches that it was proved with, and the model's own answers."""
        self.errors = errors
        """By output: how far the parts' answers were from those."""
        self._held = held
        self._rtol, self._atol = tolerances
        self._saved: list[Path] = []

    def __repr__(self) -> str:
        return f"Partition({self.plan.model!r}, ranks={self.plan.ranks}, by={self.plan.by!r})"

    @property
    def folder(self) -> Path:
        """Where the parts lie until :meth:`close`: ``rank-0/model.onnx`` and so on, with the documents beside them."""
        return Path(self._held.name) / PARTS_FOLDER

    @property
    def ranks(self) -> list[list[onnx.ModelProto]]:
        """The graphs of each rank, one for each stage at which it computes. Read when asked for."""
        return [list(map(self.graph, self.plan.of_rank(rank))) for rank in range(self.plan.ranks)]

    @property
    def combine(self) -> list[onnx.ModelProto]:
        """The graphs that put the ranks' answers together, one for each stage; none by layer."""
        return [self.graph(part) for part in self.plan.parts if part.rank is None]

    def graph(self, part: PartRecord) -> onnx.ModelProto:
        """One part, read from its file."""
        return onnx.load(self.folder / part.file)

    def manifest(self, rank: int) -> RankManifest:
        """What the process of one rank needs to know. InvalidInputError for a rank that there is not."""
        return manifest_of(self.plan, rank)

    def chain(self) -> Chain:
        """The parts in this process, one after the other: ``chain()(inputs)`` answers as the whole model does."""
        return Chain(self.plan, self.folder)

    def save(self, folder: str | Path) -> Path:
        """Write the parts, ``partition.json``, and a manifest for each rank into ``folder``.

        It appears whole or not at all. ConflictError where there is something in it already.
        """
        target = Path(folder)
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ConflictError(f"{target} is there already, and not empty: name a new folder, or remove it")
        with refusals_told(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partition-") as name:
                staged = Path(name) / PARTS_FOLDER
                shutil.copytree(self.folder, staged)
                staged.rename(target)  # onto a folder that is empty, or none
        self._saved.append(target)
        return target

    def publish(
        self,
        repository: ModelRepository | str | Path,
        *,
        devices: Sequence[int] | None = None,
        max_batch_size: int | None = None,
        access: Access = "private",
        rtol: float | None = None,
        atol: float | None = None,
        on_stage: Stage = lambda _: None,
    ) -> Published:
        """Publish it in ``repository``: entries ``<name>-rank-0``… and ``<name>-combine``, and ``<name>`` over them.

        ``<name>`` is an ensemble whose members are these versions; its golden batches are the whole model's own
        answers. All of it is published, or nothing. Its versions are in ``published.json`` of the folder that it was
        saved to, or is saved to after this: so a :class:`RankedClient` asks for these.

        :param devices: the GPU of each rank on the one server, also of entries that had another; how many instances
            are there stays. By default what the entries say already; of new ones, Triton chooses.
        :param max_batch_size: as for ``entry.export_version``, of the whole and of every part.
        :param access: whether clients may call the parts by themselves.
        :param rtol: of the proof that the entry answers as the whole does, as ``atol``; by default what the parts were
            proved with.
        :raises ConflictError: an entry of one of the names is something else.
        :raises InvalidInputError: devices that are not one for each rank, or for an entry that keeps to the CPU.
        :raises ExportError: a ``max_batch_size``, and a part that takes or gives a tensor that does not lead with it.
        """
        published = publish(
            self.plan,
            self.folder,
            self.samples,
            repository,
            devices=devices,
            max_batch_size=max_batch_size,
            access=access,
            rtol=self._rtol if rtol is None else rtol,
            atol=self._atol if atol is None else atol,
            on_stage=on_stage,
        )
        for folder in (self.folder, *self._saved):
            if folder.is_dir():
                with refusals_told(folder):
                    (folder / PUBLISHED_FILE).write_bytes(encoded(published))
        return published

    def close(self) -> None:
        """Remove the files; harmless when that was done."""
        self._held.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
