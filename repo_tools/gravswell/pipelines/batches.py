"""The batches that a pipeline is proved with: the user's, or random ones that its function takes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from gravswell.errors import ExportError, GravswellError
from gravswell.quiver.composition.base import Wishes
from gravswell.quiver.composition.opening import MemberVersion
from gravswell.quiver.exporters.base import Inputs, InputSpec, Outputs, answered, described
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

    if wishes.samples:
        samples = [reference.shaped(sample) for sample in wishes.samples]
        given, own = given_batches(specs, samples), {rows_of(sample) for sample in samples}
        # where it may be no batch, some rows of a picture are another picture
        chosen = [batch for batch in given if rows_of(batch) in own or (in_rows and fits(batch))]
        chosen += [with_rows(chosen[0], beyond)] if beyond else []
        for batch in chosen:
            answered(reference, batch)
        return chosen
    first: Exception | None = None
    for batches in (random_batches(specs, plan) for plan in PLANS):
        chosen = [batch for batch in batches if fits(batch)]
        chosen += [with_rows(chosen[0], beyond)] if beyond else []
        try:
            for batch in chosen:
                reference(batch)
        except GravswellError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises
            first = first or error
        else:
            return chosen
    shapes = ", ".join(f"{s.name} {s.data_type} {s.dims}" for s in specs)
    raise ExportError(
        f"the function itself fails on random inputs of {shapes} ({described(first or ValueError())}): give batches "
        f"that it accepts as sample_inputs (--sample-inputs FILE.npz), or declare the types and shapes that it takes"
    ) from first
