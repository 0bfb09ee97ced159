"""KEDA that goes, or whose objects the operator may no longer see: replicas have one owner, and what sleeps wakes."""

from typing import Any

import pytest

from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.conditions import Reason
from gravswell_operator.statuses.autoscaling import LETTING_GO_SECONDS

from .conftest import World

WAKE = {"name": "office", "type": "Schedule", "schedule": {"start": "0 8 * * *", "end": "0 18 * * *"}}
BY_KEDA = {"minReplicas": 0, "maxReplicas": 4, "keda": {"wakes": [WAKE]}}
HANDED = f"apply as {names.HANDOVER_MANAGER} Deployment server"
REFUSED = "403: scaledobjects.keda.sh is forbidden"


class Keda:
    """What KEDA and the API server do, as watches show it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def see(self, why: str | None) -> None:
        """Whether ScaledObjects can be watched: None; or why not, an empty text where nobody knows the kind."""
        if why is not None:
            for record in self.world.context.cache.all(resources.SCALED_OBJECT):
                self.world.context.forget(record)
        self.world.context.found(resources.SCALED_OBJECT, why)

    def take(self) -> None:
        """KEDA has seen the ScaledObject, and made its autoscaler, which bears its labels."""
        scaled = self.world.get("ScaledObject", "server")
        assert scaled is not None
        owner = {"kind": "ScaledObject", "name": "server", "uid": scaled["metadata"]["uid"], "controller": True}
        metadata = {"name": "keda-hpa-server", "namespace": "ns", "labels": scaled["metadata"]["labels"]}
        body = {"kind": "HorizontalPodAutoscaler", "metadata": {**metadata, "ownerReferences": [owner]}}
        self.world.see(resources.AUTOSCALER, body)
        conditions = {"conditions": [{"type": "Ready", "status": "True"}]}
        self.world.see(resources.SCALED_OBJECT, {**scaled, "status": conditions})

    def delete(self, scaled: dict[str, Any]) -> None:
        """The ScaledObject was deleted, and stays until KEDA lets it go."""
        going = {**scaled["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        self.world.see(resources.SCALED_OBJECT, {**scaled, "metadata": going})

    def scale(self, replicas: int) -> None:
        """As KEDA, or what it made, does through the scale of the Deployment."""
        deployment = self.deployment()
        self.world.see(resources.DEPLOYMENT, {**deployment, "spec": {**deployment["spec"], "replicas": replicas}})

    def deployment(self) -> dict[str, Any]:
        found = self.world.get("Deployment", "server")
        assert found is not None
        return found

    @property
    def replicas(self) -> int | None:
        return self.deployment()["spec"].get("replicas")

    @property
    def scales(self) -> bool:
        """Whether what KEDA made is still there, and would answer what others write of the replicas."""
        return self.world.get("HorizontalPodAutoscaler", "keda-hpa-server") is not None

    def condition(self, kind: str = "Ready") -> tuple[str, str]:
        found = self.world.condition("InferenceServer", "server", kind)
        return found["status"], found["reason"]


@pytest.fixture
async def keda(served):
    """A server that KEDA scales, at two replicas."""
    keda = Keda(served)
    keda.see(None)
    served.change(resources.INFERENCE_SERVER, "server", replicas=None, autoscaling=BY_KEDA)
    await served.settle()
    keda.take()
    keda.scale(2)
    await served.settle()
    assert keda.replicas == 2
    served.api.writes.clear()
    return keda


async def test_a_server_that_sleeps_wakes_when_keda_is_gone(keda):
    world = keda.world
    keda.scale(0)
    await world.settle()
    assert keda.condition("Autoscaling") == ("True", Reason.SCALED_TO_ZERO)
    assert HANDED not in world.api.writes
    keda.see("")
    await world.settle()
    assert keda.replicas == 1
    assert world.api.writes.count(HANDED) == 1
    assert not keda.scales
    assert keda.condition("Autoscaling") == ("False", Reason.AUTOSCALER_MISSING)
    assert keda.condition()[1] == Reason.NO_MODELS  # it starts, and is judged as any other
    world.api.writes.clear()
    world.restart()
    keda.see("")
    await world.settle()
    assert not [write for write in world.api.writes if not write.startswith("status")]


async def test_a_server_that_serves_stays_as_it_is_when_keda_is_gone(keda):
    keda.see("")
    await keda.world.settle()
    assert keda.replicas == 2
    assert HANDED not in keda.world.api.writes
    assert keda.condition("Autoscaling") == ("False", Reason.AUTOSCALER_MISSING)


async def test_a_server_wakes_whose_scaled_object_waits_for_a_keda_that_is_gone(keda):
    """Who uninstalls KEDA leaves its objects behind: each waits for KEDA to let it go, and so does their definition."""
    world = keda.world
    keda.scale(0)
    await world.settle()
    scaled = world.get("ScaledObject", "server")
    keda.delete(scaled)
    await world.settle()
    assert keda.replicas == 0  # as yet a KEDA may be about to let it go
    assert keda.condition("Autoscaling") == ("True", Reason.SCALED_TO_ZERO)
    world.pass_by(seconds=LETTING_GO_SECONDS)
    await world.settle()
    assert keda.replicas == 1
    assert "apply ScaledObject server" not in world.api.writes
    message = world.condition("InferenceServer", "server", "Autoscaling")["message"]
    assert "kubectl -n ns patch scaledobject server --type merge" in message
    world.remove(resources.SCALED_OBJECT, "server")  # that was followed, or KEDA is back
    await world.settle()
    assert world.get("ScaledObject", "server") is not None
    assert keda.condition("Autoscaling")[1] == Reason.AUTOSCALER_WAITING


async def test_a_server_sleeps_on_whose_scaled_object_somebody_deletes(keda):
    """KEDA lets it go within seconds, and takes the one that is made in its place."""
    world = keda.world
    keda.scale(0)
    await world.settle()
    scaled = world.get("ScaledObject", "server")
    world.api.writes.clear()
    keda.delete(scaled)
    await world.settle()
    world.pass_by(seconds=2)
    world.remove(resources.SCALED_OBJECT, "server")
    await world.settle()
    world.pass_by(seconds=2 * LETTING_GO_SECONDS)
    await world.settle()
    assert world.get("ScaledObject", "server") is not None
    assert keda.replicas == 0
    assert HANDED not in world.api.writes


async def test_a_scaled_object_that_no_keda_lets_go_is_told_and_deleted_once(keda):
    """Of a server that shall have none any more: it would be in the way of who removes what is left of KEDA."""
    world = keda.world
    scaled = world.get("ScaledObject", "server")
    world.change(resources.INFERENCE_SERVER, "server", replicas=3, autoscaling=None)
    await world.settle()
    keda.delete(scaled)
    world.api.writes.clear()
    await world.settle()
    kinds = {c["type"] for c in world.get("InferenceServer", "server")["status"]["conditions"]}
    assert "Autoscaling" not in kinds
    world.pass_by(seconds=LETTING_GO_SECONDS)
    await world.settle()
    assert keda.condition("Autoscaling") == ("False", Reason.AUTOSCALER_MISSING)
    message = world.condition("InferenceServer", "server", "Autoscaling")["message"]
    assert "ScaledObject ns/server is being deleted, and waits for KEDA to let it go" in message
    assert keda.replicas == 3
    assert not [write for write in world.api.writes if write.startswith("delete ScaledObject")]
    world.remove(resources.SCALED_OBJECT, "server")
    await world.settle()
    kinds = {c["type"] for c in world.get("InferenceServer", "server")["status"]["conditions"]}
    assert "Autoscaling" not in kinds


async def test_while_it_cannot_be_seen_keda_goes_on(keda):
    """As after autoscaling.keda of the chart was switched off."""
    world = keda.world
    keda.see(REFUSED)
    keda.scale(0)
    await world.settle()
    assert keda.replicas == 0
    assert keda.scales
    assert world.get("ScaledObject", "server") is not None
    assert keda.condition() == ("True", Reason.SCALED_TO_ZERO)  # what KEDA made shows that it is there to wake it
    told = world.condition("InferenceServer", "server", "Autoscaling")
    assert (told["status"], told["reason"]) == ("False", Reason.FORBIDDEN)
    assert "autoscaling.keda of its chart" in told["message"]
    world.remove(resources.AUTOSCALER, "keda-hpa-server")
    await world.settle()
    assert keda.condition() == ("False", Reason.FORBIDDEN)
    assert keda.replicas == 0  # paused by hand, perhaps


@pytest.mark.parametrize(
    ("wish", "replicas"),
    [({"replicas": 3, "autoscaling": None}, 3), ({"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}, 2)],
)
async def test_replicas_do_not_pass_to_another_owner_while_keda_scales_them_out_of_sight(keda, wish, replicas):
    world = keda.world
    keda.see(REFUSED)
    world.change(resources.INFERENCE_SERVER, "server", **wish)
    await world.settle()
    assert keda.replicas == 2
    assert world.get("HorizontalPodAutoscaler", "server") is None
    told = world.condition("InferenceServer", "server")
    assert (told["status"], told["reason"]) == ("False", Reason.FORBIDDEN)
    assert "kubectl -n ns delete scaledobject server" in told["message"]
    world.api.writes.clear()
    world.restart()  # nothing is remembered, and nobody has looked
    await world.settle()
    assert keda.replicas == 2
    assert not [write for write in world.api.writes if not write.startswith("status")]
    world.api.objects.pop(("ScaledObject", "ns", "server"))  # as the message says, and what KEDA made goes with it
    world.remove(resources.AUTOSCALER, "keda-hpa-server")
    keda.see(REFUSED)
    await world.settle()
    assert keda.condition()[1] == Reason.NO_MODELS
    assert keda.replicas == replicas
    assert (world.get("HorizontalPodAutoscaler", "server") is None) is (wish["autoscaling"] is None)


async def test_a_scaled_object_that_comes_into_sight_again_goes(keda):
    world = keda.world
    keda.see(REFUSED)
    world.change(resources.INFERENCE_SERVER, "server", replicas=3, autoscaling=None)
    await world.settle()
    keda.see(None)
    world.see(resources.SCALED_OBJECT, world.get("ScaledObject", "server"))
    await world.settle()
    assert world.get("ScaledObject", "server") is None
    assert not keda.scales
    assert keda.replicas == 3


async def test_what_keda_left_behind_does_not_scale_beside_us(keda):
    """The garbage collector does not take what belongs to an object of a kind that nobody knows any more."""
    world = keda.world
    keda.see("")
    world.api.objects.pop(("ScaledObject", "ns", "server"))
    world.change(resources.INFERENCE_SERVER, "server", replicas=3, autoscaling=None)
    await world.settle()
    assert not keda.scales
    assert keda.replicas == 3


async def test_what_bears_such_a_name_and_is_of_another_server_is_left_alone(keda):
    world = keda.world
    labels = {"app.kubernetes.io/managed-by": "gravswell", "gravswell.dev/server": "keda-hpa-server"}
    metadata = {"name": "keda-hpa-server", "namespace": "ns", "labels": labels}
    world.see(resources.AUTOSCALER, {"kind": "HorizontalPodAutoscaler", "metadata": metadata})
    keda.see("")
    world.change(resources.INFERENCE_SERVER, "server", replicas=3, autoscaling=None)
    await world.settle()
    assert keda.scales
    assert keda.replicas == 3
