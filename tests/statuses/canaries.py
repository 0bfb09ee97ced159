"""A canary of version 2 beside version 1, as it is stored."""

from datetime import UTC, datetime

from gravswell.serving.contracts import Canary, DesiredModel
from gravswell_operator.api import Model
from gravswell_operator.desired.rollouts import window

OLD, NEW = (DesiredModel(name="my-model", version=number, digest=f"{number:064x}") for number in (1, 2))
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STARTED = "2026-01-01T00:00:00Z"
UNDER_WAY = {
    "strategy": "Canary",
    "state": "Progressing",
    "from": 1,
    "to": 2,
    "toDigest": NEW.digest,
    "step": 1,
    "steps": 2,
    "started": STARTED,
    "since": STARTED,
}


def stored(rollout=None, *, steps, strategy="Canary", **asked):
    """A Model that serves version 1, with the record ``rollout``; ``asked`` are further fields of ``spec.rollout``."""
    canary = {"steps": steps, "judge": {"minRequests": 0}, "progressDeadline": "5m"}
    spec = {"strategy": strategy, **({"canary": canary} if strategy == "Canary" else {}), **asked}
    return Model.model_validate(
        {
            "metadata": {"name": "m", "namespace": "ns", "generation": 1},
            "spec": {"serverRef": {"name": "s"}, "entry": "my-model", "rollout": spec},
            "status": {"desiredVersion": 1, "desiredDigest": OLD.digest, **({"rollout": rollout} if rollout else {})},
        }
    )


def kept(model, told):
    """What the agents were told last: the pods ``told`` to try version 2, in the step that the record has."""
    if not told or model.status.rollout is None:
        return OLD
    canary = Canary(version=NEW.version, digest=NEW.digest, pods=told, window=window(model.status.rollout))
    return OLD.model_copy(update={"canary": canary})
