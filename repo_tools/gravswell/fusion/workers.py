"""Workers, each of which asks one model of a fusion."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from gravswell.errors import InvalidInputError
from gravswell.quiver.manifest import FusedModel


class Worker(BaseModel):
    """One worker, and the model that it asks."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    worker: int
    """Its number, from 1 on."""
    model_id: int
    name: str


def assigned(workers: int, models: Sequence[FusedModel]) -> list[Worker]:
    """The workers, round-robin: worker ``w`` asks model ``(w - 1) mod N + 1`` of the N ``models``.

    With fewer workers than models the last models have none.
    """
    if workers < 1:
        raise InvalidInputError(f"{workers} workers ask nothing: use 1 or more")
    found = [models[worker % len(models)] for worker in range(workers)]
    return [Worker(worker=k, model_id=model.id, name=model.name) for k, model in enumerate(found, 1)]
