"""A partition in a repository: an entry for every part, and one for the whole, which is an ensemble over them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime as ort

from gravswell.errors import ConflictError, InvalidInputError
from gravswell.partitions.chain import Chain
from gravswell.partitions.records import PartRecord, Plan, Published
from gravswell.quiver.composition.base import Composite, Wishes
from gravswell.quiver.composition.config import Access, set_parameters
from gravswell.quiver.composition.opening import MemberVersion, Sessions, member_version
from gravswell.quiver.composition.proving import proved
from gravswell.quiver.config import ConfigText, ModelConfig
from gravswell.quiver.devices import on_devices
from gravswell.quiver.entry import Entry
from gravswell.quiver.exporters import Built, Stage
from gravswell.quiver.golden import Sample
from gravswell.quiver.layout import version_at
from gravswell.quiver.manifest import Signature, TensorRecord
from gravswell.quiver.platform import Platform
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.repository import ModelRepository


def publish(
    plan: Plan,
    folder: Path,
    samples: Sequence[Sample],
    repository: ModelRepository | str | Path,
    *,
    devices: Sequence[int] | None = None,
    max_batch_size: int | None = None,
    access: Access = "private",
    rtol: float | None = None,
    atol: float | None = None,
    on_stage: Stage = lambda _: None,
) -> Published:
    """Publish the parts in ``folder``, then the whole. See ``Partition.publish``."""
    if devices is not None and (
        len(devices) != plan.ranks or not all(isinstance(device, int) and device >= 0 for device in devices)
    ):
        raise InvalidInputError(
            f"devices {list(devices)} for {plan.ranks} ranks: name one GPU for each rank, numbered from 0 on"
        )
    repo = repository if isinstance(repository, ModelRepository) else ModelRepository(str(repository))
    _check_free(repo, plan)
    on = {
        entry_of(plan, part): devices[part.rank] for part in plan.parts if devices is not None and part.rank is not None
    }
    for name, device in on.items():
        if (entry := repo.models.get(name)) is not None:  # one that cannot run there is told before anything is written
            _on_device(entry, device)
    fed = list(map(Chain(plan, folder).fed, (sample.inputs for sample in samples)))
    with ExitStack() as entries, ExitStack() as undo:  # all of it or nothing

        def present(name: str, platform: Platform) -> Entry:
            return entries.enter_context(repo.present(name, partial(repo.add, name, platform)))

        versions: dict[str, int] = {}
        for k, part in enumerate(plan.parts):
            name = entry_of(plan, part)
            on_stage(f"publishing {name} ({k + 1} of {len(plan.parts)})")
            entry = present(name, Platform.ONNX)
            _place(entry, on.get(name), "cpu" if part.rank is None else "auto", undo)
            path = entry.export_version(
                folder / part.file,
                sample_inputs=[batches[k][1] for batches in fed],
                max_batch_size=max_batch_size,
            )
            versions[name] = version_at(path)
            undo.callback(entry.remove_version, versions[name])
        on_stage(f"publishing {plan.model}")
        whole = present(plan.model, Platform.PIPELINE)
        joined = Joined(plan, versions, samples, access)
        path = whole.export_version(joined, max_batch_size=max_batch_size, rtol=rtol, atol=atol)
        undo.pop_all()
    return Published(repository=repo.url, entry=plan.model, version=version_at(path), parts=versions)


def entry_of(plan: Plan, part: PartRecord) -> str:
    """The entry of a part: ``big-rank-0``, ``big-combine``."""
    return f"{plan.model}-{part.name}"


class Joined(Composite):
    """The parts of a partition as an ensemble: tensors have the same names in it as in the parts.

    Its golden batches are the whole model's own answers.
    """

    def __init__(self, plan: Plan, versions: dict[str, int], samples: Sequence[Sample], access: Access) -> None:
        self._plan, self._versions, self._samples, self._access = plan, versions, samples, access

    def build(self, reader: RepositoryReader, folder: Path, wishes: Wishes) -> Built:
        """See :class:`Composite`."""
        members = [
            _of_rank(member_version(reader, name, name, number), part)
            for part, (name, number) in zip(self._plan.parts, self._versions.items(), strict=True)
        ]
        parts = self._parts(members)
        inputs, outputs = (tuple(map(_plain, side)) for side in (self._plan.inputs, self._plan.outputs))
        with TemporaryDirectory(prefix="gravswell-parts-") as name:
            return proved(
                folder,
                parts,
                Signature(inputs=inputs, outputs=outputs),
                members,
                Sessions(reader, Path(name)),
                batches=[sample.inputs for sample in self._samples],
                reference=self._whole,
                wishes=wishes,
                told="the published ensemble",
                against=f"{self._plan.model} in one piece, onnxruntime {ort.__version__}",
                inputs="given",
                exporter=f"gravswell partition of {self._plan.ranks} ranks by {self._plan.by}",
                framework=f"onnxruntime {ort.__version__}",
            )

    def _parts(self, members: Sequence[MemberVersion]) -> Any:
        parts = ModelConfig(platform=Platform.PIPELINE.value)
        for part, member in zip(self._plan.parts, members, strict=True):
            parts.ensemble_scheduling.step.add(
                model_name=member.model,
                model_version=member.record.version,
                input_map={one.name: one.name for one in part.inputs},
                output_map={one.name: one.name for one in part.outputs},
            )
        set_parameters(parts, self._access)
        return parts

    def _whole(self, batch: Any) -> Any:
        return next(sample.outputs for sample in self._samples if sample.inputs is batch)


def _of_rank(member: MemberVersion, part: PartRecord) -> MemberVersion:
    """``member``, whose record says which rank computes it: what servers with ranks go by."""
    return replace(member, record=member.record.model_copy(update={"rank": part.rank}))


def _plain(record: TensorRecord) -> TensorRecord:
    return TensorRecord(name=record.name, data_type=record.data_type, dims=record.dims)


def _check_free(repo: ModelRepository, plan: Plan) -> None:
    """ConflictError, before anything is written, where an entry of one of the names holds something else."""
    wanted = {entry_of(plan, part): (Platform.ONNX, part.inputs, part.outputs) for part in plan.parts}
    wanted[plan.model] = (Platform.PIPELINE, plan.inputs, plan.outputs)
    for name, (platform, *sides) in wanted.items():
        entry = repo.models.get(name)
        if entry is None:
            continue
        tensors = [{one.name: (one.data_type, one.dims) for one in side} for side in sides]
        have = [{key: (one.data_type, one.dims) for key, one in side.items()} for side in (entry.inputs, entry.outputs)]
        if entry.platform is not platform or (any(have) and have != tensors):
            raise ConflictError(
                f"{name} is in {repo.url} already, and is no {platform.name.lower()} of these tensors: publish the "
                f"partition under another name (--name), or remove the entry first (gravswell rm)"
            )


def _place(entry: Entry, device: int | None, kind: str, undo: ExitStack) -> None:
    """Have it run on ``device``. None: as the entry says already; where it says nothing, one instance of ``kind``."""
    before = list(entry.config.message.instance_group)
    if device is None and before:
        return
    undo.callback(_regroup, entry, before)
    if device is None:
        entry.config.add_instance_group(count=1, kind=kind)
    else:
        entry.config.replace(_on_device(entry, device))


def _on_device(entry: Entry, device: int) -> str:
    """The entry's configuration on one GPU. InvalidInputError where it keeps to what is no GPU."""
    text = ConfigText(str(entry.config), where=entry.config.where)
    on_devices(text.message, [device])
    if not any(device in group.gpus for group in text.message.instance_group):
        raise InvalidInputError(
            f"{entry.name} does not run on GPU {device}: {text.where} has it run elsewhere (instance_group kind); have "
            f"it run on GPUs (gravswell config set REPO {entry.name} instance_group[0].kind=KIND_GPU), or name no "
            f"devices"
        )
    return text.render()


def _regroup(entry: Entry, groups: Sequence[Any]) -> None:
    with entry.config.editing() as config:
        del config.instance_group[:]
        config.instance_group.extend(groups)
