"""The batches that a pipeline is proved with: the user's, or random ones that its function takes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from gravswell.errors import ExportError
from gravswell.quiver.composition.base import Wishes
from gravswell.quiver.composition.opening import MemberVersion
from gravswell.quiver.exporters.base import Inputs, InputSpec, Outputs, accepted, answered, described
from gravswell.quiver.exporters.sampling import PLANS, given_batches, random_batches, rows_of, with_rows
from gravswell.quiver.manifest import TensorRecord


class Reference(Protocol):
    """The function, run here."""

    def __call__(self, batch: Inputs) -> Outputs:
        """What it answers. Raises whatever the user's function raises."""

    def shaped(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """A user's batch in the shapes that it takes."""


def batches_for(
    inputs: Sequence[TensorRecord],
    members: Iterable[MemberVersion],
    reference: Reference,
    wishes: Wishes,
    *,
    in_rows: bool,
) -> list[Inputs]:
    """Batches that the function takes. ExportError where it takes none, and of the user's one that it does not take.

    ``in_rows``: a first axis of any size is that of rows, so that the user's batches are tried at other sizes too. A
    function that is to take more rows than a member does is tried with such a batch.
    """
    specs = [InputSpec.of(record) for record in inputs]
    limit = min((member.max_batch_size for member in members if member.max_batch_size), default=0)
    beyond = limit + 1 if 0 < limit < wishes.max_batch_size else 0

    def fits(batch: Inputs) -> bool:
        return not limit or rows_of(batch) <= limit

    def with_larger(chosen: list[Inputs]) -> list[Inputs]:
        return [*chosen, with_rows(chosen[0], beyond)] if beyond else chosen

    if wishes.samples:
        samples = [reference.shaped(sample) for sample in wishes.samples]
        given, own = given_batches(specs, samples), {rows_of(sample) for sample in samples}
        # where it may be no batch, some rows of a picture are another picture
        chosen = with_larger([batch for batch in given if rows_of(batch) in own or (in_rows and fits(batch))])
        for batch in chosen:
            answered(reference, batch)
        return chosen
    random = (random_batches(specs, plan) for plan in PLANS)
    found = accepted(reference, (with_larger([batch for batch in batches if fits(batch)]) for batches in random))
    if not isinstance(found, Exception):
        return found
    shapes = ", ".join(f"{s.name} {s.data_type} {s.dims}" for s in specs)
    raise ExportError(
        f"the function itself fails on random inputs of {shapes} ({described(found)}): give batches that it accepts as "
        f"sample_inputs (--sample-inputs FILE.npz), or declare the types and shapes that it takes"
    ) from found
