"""An ensemble that others wrote, as a pipeline's version: its steps, each pinned to a version that is there.

Its configuration is all that there is of it, so ONNX Runtime itself is the reference: the steps are run one by one.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravswell.errors import ExportError, InvalidInputError, NotFoundError
from gravswell.quiver.composition.base import Composite, Wishes
from gravswell.quiver.composition.config import set_parameters
from gravswell.quiver.composition.opening import MemberVersion, Sessions, check_batches, member_version, running
from gravswell.quiver.config import ModelConfig
from gravswell.quiver.manifest import Signature
from gravswell.quiver.reader import RepositoryReader

if TYPE_CHECKING:
    from gravswell.quiver.exporters import Built


class ForeignEnsemble(Composite):
    """The ensemble that ``config`` says, whose members are to be in the repository that it is published in.

    Clients go on calling the members by themselves, as they do there.
    """

    def __init__(self, name: str, config: Any) -> None:
        self.name = name
        self.config = config

    def pinned(self, reader: RepositoryReader) -> Any:
        """The ``ensemble_scheduling`` with a number in each step: its own, or the newest that is there.

        NotFoundError for a member that is not in the repository.
        """
        made = ModelConfig().ensemble_scheduling
        made.CopyFrom(self.config.ensemble_scheduling)
        for step in made.step:
            newest = reader.newest(step.model_name) if reader.has(step.model_name) else None
            if newest is None:
                raise NotFoundError(
                    f"{self.name} is an ensemble of {step.model_name}, which is not in {reader.store.location('')}: "
                    f"import it too, or see why it was not imported"
                )
            if step.model_version <= 0:
                step.model_version = newest.number
        return made

    def build(self, reader: RepositoryReader, folder: Path, wishes: Wishes) -> "Built":
        """See :class:`Composite`. ExportError where its members take no random inputs."""
        import onnxruntime as ort  # noqa: PLC0415 - takes long, here and below

        from gravswell.quiver.composition.proving import config_of, proved  # noqa: PLC0415
        from gravswell.quiver.exporters.base import InputSpec, accepted, described  # noqa: PLC0415
        from gravswell.quiver.exporters.sampling import PLANS, given_batches, random_batches  # noqa: PLC0415

        parts = ModelConfig(platform="ensemble")
        parts.ensemble_scheduling.CopyFrom(self.pinned(reader))
        if wishes.stated is None:
            raise InvalidInputError(f"{self.name} states no inputs and outputs: Triton fills in none of an ensemble")
        if wishes.input_shapes:
            raise InvalidInputError(f"{self.name} is an ensemble, which states its shapes: choose sizes by samples")
        set_parameters(parts, "public")
        steps = list(parts.ensemble_scheduling.step)
        called = dict.fromkeys((step.model_name, step.model_version) for step in steps)
        known = {(model, number): member_version(reader, model, model, number) for model, number in called}
        members = list(known.values())
        check_batches(members, wishes.max_batch_size)
        _check_tensors(self.name, wishes.stated, [(s, known[s.model_name, s.model_version]) for s in steps])
        specs = [InputSpec.of(record) for record in wishes.stated.inputs]
        with tempfile.TemporaryDirectory(prefix="gravswell-ensemble-") as temporary:
            sessions = Sessions(reader, Path(temporary), wishes.progress)
            with running(folder, config_of(parts, wishes.stated), [], sessions) as run:
                found = (
                    given_batches(specs, wishes.samples)
                    if wishes.samples
                    else accepted(run, (random_batches(specs, plan) for plan in PLANS))
                )
                if isinstance(found, Exception):
                    raise ExportError(
                        f"the members of {self.name} fail on random inputs ({described(found)}): give batches that "
                        f"they accept (--sample-inputs FILE.npz)"
                    ) from found
                runtime = f"onnxruntime {ort.__version__}"
                return proved(
                    folder,
                    parts,
                    wishes.stated,
                    members,
                    sessions,
                    batches=found,
                    reference=run,
                    wishes=wishes,
                    told="the ensemble",
                    against=runtime,
                    inputs="given" if wishes.samples else "random",
                    exporter="gravswell import (ensemble)",
                    framework=runtime,
                )


def _check_tensors(name: str, stated: Signature, steps: Sequence[tuple[Any, MemberVersion]]) -> None:
    """InvalidInputError for a tensor that nothing makes, or that is made of another type than it is taken as."""
    made = {record.name: (record.data_type, f"the input of {name}") for record in stated.inputs}
    wanted = []
    for step, member in steps:
        _check_maps(name, step, member)
        takes = {record.name: record.data_type for record in member.inputs}
        gives = {record.name: record.data_type for record in member.outputs}
        wanted += [(tensor, takes[own], member.told) for own, tensor in sorted(step.input_map.items())]
        made |= {tensor: (gives[own], f"made by {member.told}") for own, tensor in step.output_map.items()}
    wanted += [(record.name, record.data_type, f"{name} as its output") for record in stated.outputs]
    for tensor, data_type, taker in wanted:
        if tensor not in made:
            raise InvalidInputError(f"{name}: no step makes {tensor}, which {taker} takes: mend its steps")
        kind, maker = made[tensor]
        if kind != data_type:
            told = f"{tensor} is {kind}, {maker}, and {taker} takes {data_type}"
            raise InvalidInputError(f"{name}: {told}: mend its configuration")


def _check_maps(name: str, step: Any, member: MemberVersion) -> None:
    """InvalidInputError for a tensor that the step maps and the member does not have, or needs and does not get."""
    taken = [record.name for record in member.inputs]
    needed = {record.name for record in member.inputs if not record.optional}
    made = [record.name for record in member.outputs]
    unknown = sorted({*step.input_map} - {*taken} | {*step.output_map} - {*made})
    if unknown or needed - {*step.input_map}:
        what = f"maps {', '.join(unknown)}" if unknown else f"gives no {', '.join(sorted(needed - {*step.input_map}))}"
        raise InvalidInputError(
            f"{name}: the step of {member.told} {what}; it takes {', '.join(taken)} and gives {', '.join(made)}"
        )
