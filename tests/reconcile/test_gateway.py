"""Canaries by weight in the engine: what is written in which order, and that nothing of it fails a request."""

import pytest

from gravswell.kube.errors import ApiUnavailableError
from gravswell_operator.cluster import resources
from gravswell_operator.reconcile.gateway import SETTLE_SECONDS

from .conftest import World
from .gateways import CANARY, GATEWAY, KINDS, NAMES, REST, Weighted, weighed

SERVICES = ["server-old", "server-new", "server-old-ipv4", "server-new-ipv4"]


@pytest.fixture
def weighted(world):
    return Weighted(world)


def order(writes, *wanted):
    """Where each of ``wanted`` comes first."""
    return [writes.index(words) for words in wanted]


async def test_at_rest_the_routes_name_the_server_and_nothing_is_written(weighted):
    await weighted.begin()
    assert weighted.routes() == [REST, REST]
    assert weighted.services() == []
    assert weighted.condition("InferenceServer", "server", "RoutesAccepted") == ("True", "RoutesTaken")
    weighted.world.api.writes.clear()
    weighted.world.restart()
    await weighted.pass_by(minutes=1)
    assert weighted.world.api.writes == []


async def test_a_canary_goes_through_its_weights(weighted):
    await weighted.begin()
    weighted.world.events.told.clear()
    weighted.publish(1, 2)
    await weighted.settle()
    assert weighted.new() == ["p-1"]
    assert weighted.routes() == [weighed(10)] * 2
    assert (weighted.ready("server-new"), weighted.ready("server-old")) == (["p-1"], ["p-2", "p-3", "p-4"])
    assert (weighted.status()["state"], weighted.status()["weight"]) == ("Progressing", 10)
    assert weighted.condition("Model", "my-model") == ("True", "Serving")

    weighted.asked = {1: (100, 0), 2: (10, 0)}
    await weighted.pass_by(minutes=11)
    assert weighted.new() == ["p-1", "p-2"]
    assert weighted.routes() == [weighed(30)] * 2
    assert weighted.ready("server-new") == ["p-1", "p-2"]
    assert (weighted.status()["state"], weighted.status()["weight"]) == ("Paused", 30)
    assert weighted.condition("InferenceServer", "server", "RoutesAccepted") == ("True", "RoutesTaken")

    weighted.world.change(resources.MODEL, "my-model", rollout={**CANARY, "promote": 2})
    await weighted.settle()
    assert weighted.new() == list(NAMES)
    assert weighted.routes() == [REST, REST]
    assert weighted.services() == []
    assert weighted.status()["state"] == "Complete"
    assert "weight" not in weighted.status()
    told = [event for event in weighted.world.events.told if event.startswith("InferenceServer")]
    assert told == [], "a new weight is no news"


async def test_first_nobody_can_reach_it_then_it_loads_then_it_is_weighed(weighted):
    await weighted.begin()
    weighted.slow = {"p-1"}  # it takes its time to load
    weighted.publish(1, 2)
    weighted.world.api.writes.clear()
    await weighted.settle()
    first = ("apply Service server-new", "apply EndpointSlice server-new-ipv4")
    *ends, route, agents = order(
        weighted.world.api.writes, *first, "apply HTTPRoute server", "apply ConfigMap server-desired"
    )
    assert max(ends) < route < agents
    assert weighted.routes() == [weighed(0)] * 2
    assert weighted.ready("server-old") == list(NAMES), "until it serves the new version, it serves the old one"

    weighted.slow = set()
    weighted.world.api.writes.clear()
    await weighted.settle()
    slices = ("apply EndpointSlice server-new-ipv4", "apply EndpointSlice server-old-ipv4")
    *ends, http, grpc = order(weighted.world.api.writes, *slices, "apply HTTPRoute server", "apply GRPCRoute server")
    assert max(ends) < min(http, grpc)
    assert weighted.routes() == [weighed(10)] * 2


async def test_a_route_names_endpoints_and_favours_them_when_every_gateway_has_heard_of_them(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    weighted.world.api.writes.clear()
    await weighted.world.settle()
    assert weighted.services() == SERVICES
    assert weighted.routes() == [REST, REST], "another watch tells it of these, and may be late"
    assert weighted.new() == []
    weighted.world.pass_by(seconds=SETTLE_SECONDS - 2)
    await weighted.world.settle()
    assert weighted.routes() == [REST, REST]
    weighted.world.pass_by(seconds=2)
    await weighted.world.settle()
    assert weighted.routes() == [weighed(0)] * 2

    weighted.slow = {"p-1"}
    await weighted.settle()
    weighted.slow = set()
    assert weighted._obey()
    await weighted.world.settle()
    assert weighted.ready("server-new") == ["p-1"]
    assert weighted.routes() == [weighed(0)] * 2
    weighted.world.restart()
    weighted.world.pass_by(seconds=SETTLE_SECONDS - 1)
    await weighted.world.settle()
    assert weighted.routes() == [weighed(0)] * 2, "another operator does not know since when"
    await weighted.settle()
    assert weighted.routes() == [weighed(10)] * 2
    assert weighted.world.context.settling == {}


async def test_the_next_weight_waits_for_all_of_its_replicas(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.asked = {1: (100, 0), 2: (10, 0)}
    weighted.slow = {"p-2"}
    await weighted.pass_by(minutes=11)
    assert weighted.new() == ["p-1", "p-2"]
    assert weighted.routes() == [weighed(10)] * 2
    assert weighted.ready("server-new") == ["p-1"]
    weighted.slow = set()
    await weighted.settle()
    assert weighted.routes() == [weighed(30)] * 2


async def test_a_bad_version_gets_nothing_more_before_the_agents_are_told(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.slow = {"p-1"}
    weighted.world.change(resources.MODEL, "my-model", rollout={**CANARY, "abort": 2})
    weighted.world.api.writes.clear()
    await weighted.settle()
    wanted = ("apply HTTPRoute server", "apply GRPCRoute server", "apply ConfigMap server-desired")
    http, grpc, agents = order(weighted.world.api.writes, *wanted)
    assert max(http, grpc) < agents
    assert weighted.new() == []
    assert weighted.routes() == [weighed(0)] * 2
    assert weighted.ready("server-old") == ["p-2", "p-3", "p-4"], "it still serves the bad one"
    assert weighted.status()["weight"] == 0

    weighted.slow = set()
    await weighted.settle()
    assert weighted.routes() == [REST, REST]
    assert weighted.services() == []
    assert weighted.condition("Model", "my-model") == ("False", "RolledBack")
    assert "weight" not in weighted.status()


async def test_one_that_fails_requests_is_rolled_back_by_itself(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    weighted.asked = {1: (100, 0), 2: (8, 2)}
    await weighted.settle()
    assert weighted.condition("Model", "my-model") == ("False", "RolledBack")
    assert weighted.routes() == [REST, REST]
    assert weighted.serving(2) == set()


async def test_the_services_stay_until_the_gateway_has_seen_that_no_route_names_them(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.takes = False
    weighted.world.change(resources.MODEL, "my-model", rollout={**CANARY, "promote": 2})
    await weighted.settle()
    assert weighted.routes() == [REST, REST]
    assert weighted.services() == SERVICES
    for side in ("server-old", "server-new"):
        assert weighted.ready(side) == list(NAMES), "wherever it still sends requests, somebody answers"
    weighted.pod("p-4", deleted=True)
    await weighted.settle()
    assert weighted.ready("server-old") == ["p-1", "p-2", "p-3"]
    weighted.takes = True
    await weighted.settle()
    assert weighted.services() == []


async def test_replicas_that_come_and_go_do_so_at_the_gateway(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.pod("p-4", ready=False)
    weighted.pod("p-3", deleted=True)
    await weighted.settle()
    weighted.check("they are true again")
    weighted.world.api.refuse = lambda _: None  # whoever is lost is lost, whatever is written next
    assert (weighted.ready("server-new"), weighted.ready("server-old")) == (["p-1"], ["p-2"])
    weighted.pod("p-1", ready=False)
    await weighted.settle()
    assert weighted.routes() == [weighed(0)] * 2, "a Gateway fails what it would send to nobody"
    weighted.pod("p-1")
    await weighted.settle()
    assert weighted.routes() == [weighed(10)] * 2
    weighted.pod("p-2", ready=False)
    await weighted.settle()
    assert weighted.routes() == [weighed(100)] * 2, "nobody else is left"


async def test_without_a_gateway_it_does_not_begin_and_says_so(weighted):
    await weighted.begin(gateway=None)
    weighted.publish(1, 2)
    await weighted.settle()
    assert weighted.new() == []
    assert weighted.status()["state"] == "Waiting"
    assert weighted.condition("Model", "my-model") == ("False", "GatewayMissing")
    message = weighted.world.condition("Model", "my-model")["message"]
    assert "InferenceServer server has no service.gateway: set it, or leave weight out" in message
    assert message.endswith("; version 1 stays meanwhile")
    assert "weight is a share of what comes through a Gateway" in weighted.status()["message"]
    assert weighted.condition("InferenceServer", "server", "ModelsResolved") == ("True", "ModelsKnown")
    weighted.world.change(resources.INFERENCE_SERVER, "server", service={"gateway": GATEWAY})
    await weighted.settle()
    assert weighted.routes() == [weighed(10)] * 2
    assert weighted.condition("Model", "my-model") == ("True", "Serving")


async def test_definitions_that_are_absent_are_told_and_taken_when_they_come(weighted):
    weighted.installed = ""
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    assert weighted.condition("InferenceServer", "server", "RoutesAccepted") == ("False", "GatewayMissing")
    assert weighted.condition("Model", "my-model") == ("False", "GatewayMissing")
    assert weighted.routes() == []
    assert weighted.new() == []
    weighted.installed = None
    await weighted.settle()
    assert weighted.condition("InferenceServer", "server", "RoutesAccepted") == ("True", "RoutesTaken")
    assert weighted.routes() == [weighed(10)] * 2


async def test_definitions_that_go_end_a_canary_and_leave_nothing(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.uninstall()
    await weighted.settle()
    assert weighted.status()["state"] == "Progressing"
    assert "does not know httproutes.gateway.networking.k8s.io/v1" in weighted.status()["message"]
    assert weighted.new() == ["p-1"]
    await weighted.pass_by(minutes=6)
    assert weighted.condition("Model", "my-model") == ("False", "RolledBack")
    weighted.installed = None
    await weighted.settle()
    assert weighted.routes() == [REST, REST]
    assert weighted.services() == []


async def test_what_may_no_longer_be_seen_stays_as_it_is(weighted):
    """As after the chart's gateway.enabled was switched off."""
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.installed = "403: httproutes is forbidden"
    for kind in KINDS:
        for record in weighted.world.context.cache.all(kind):
            weighted.world.context.forget(record)
    await weighted.settle()
    told = weighted.world.condition("InferenceServer", "server", "RoutesAccepted")
    assert (told["status"], told["reason"]) == ("False", "Forbidden")
    assert weighted.routes() == [weighed(10)] * 2
    assert weighted.services() == SERVICES
    weighted.world.api.writes.clear()
    weighted.world.restart()
    await weighted.settle()
    assert not [write for write in weighted.world.api.writes if "Route" in write or "EndpointSlice" in write]
    assert weighted.services() == SERVICES


async def test_what_no_gateway_takes_is_rolled_back_when_its_time_is_over(weighted):
    await weighted.begin()
    weighted.slow = {"p-1"}
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.takes = False
    weighted.slow = set()
    await weighted.settle()
    assert weighted.routes() == [weighed(10)] * 2
    assert "waits for the Gateway: no Gateway of HTTPRoute server has taken it" in weighted.status()["message"]
    await weighted.pass_by(minutes=6)
    assert weighted.condition("Model", "my-model") == ("False", "RolledBack")
    assert "progressDeadline 5m has passed" in weighted.status()["message"]
    assert weighted.new() == []


async def test_what_the_gateway_refuses_is_told_in_its_words(weighted):
    weighted.refuses = "no listener allows routes from here"
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    assert weighted.condition("InferenceServer", "server", "RoutesAccepted") == ("False", "RouteRefused")
    assert weighted.condition("Model", "my-model") == ("False", "RouteRefused")
    assert "no listener allows routes from here" in weighted.status()["message"]
    assert weighted.new() == []
    weighted.refuses = ""
    await weighted.settle()
    assert weighted.routes() == [weighed(10)] * 2


async def test_a_second_canary_waits_until_the_first_is_over(weighted):
    await weighted.begin("my-model", "other")
    weighted.publish(1, 2)
    await weighted.settle()
    assert (weighted.new(), weighted.new("other")) == (["p-1"], [])
    assert weighted.status("other")["state"] == "Waiting"
    assert "it waits for the canary of Model my-model" in weighted.status("other")["message"]
    assert weighted.condition("Model", "other") == ("True", "Serving")
    assert weighted.condition("Model", "other", "Progressing") == ("True", "RollingOut")

    weighted.slow = {"p-1"}  # it does not go back yet
    weighted.world.change(resources.MODEL, "my-model", rollout={**CANARY, "abort": 2})
    await weighted.settle()
    assert weighted.routes() == [weighed(0)] * 2
    assert weighted.new("other") == [], "the way back is a part of it"
    weighted.slow = set()
    await weighted.settle()
    assert weighted.new("other") == ["p-1"]
    assert weighted.routes() == [weighed(10)] * 2
    assert "weight" not in weighted.status("my-model")
    assert weighted.status("other")["weight"] == 10


async def test_one_that_waits_and_is_suspended_lets_others_go_before(weighted):
    await weighted.begin("my-model", "other")
    weighted.installed = ""
    weighted.uninstall()
    weighted.publish(1, 2)
    await weighted.settle()
    assert weighted.status("my-model")["state"] == weighted.status("other")["state"] == "Waiting"
    weighted.world.change(resources.MODEL, "my-model", suspend=True)
    weighted.installed = None
    await weighted.settle()
    assert (weighted.new(), weighted.new("other")) == ([], ["p-1"])


async def test_a_suspended_server_keeps_its_weights_and_loses_the_pods_that_go(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.world.change(resources.INFERENCE_SERVER, "server", suspend=True)
    await weighted.settle()
    weighted.world.api.writes.clear()
    weighted.pod("p-3", deleted=True)
    weighted.pod("p-4", ready=False)
    await weighted.settle()
    assert weighted.ready("server-old") == ["p-2"]
    assert weighted.routes() == [weighed(10)] * 2
    assert {write for write in weighted.world.api.writes if not write.startswith("status")} == {
        "apply EndpointSlice server-old-ipv4"
    }


async def test_a_server_whose_repository_is_gone_keeps_its_endpoints_true(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.world.remove(resources.MODEL_REPOSITORY, "models")
    weighted.pod("p-3", deleted=True)
    await weighted.settle()
    assert weighted.condition("InferenceServer", "server") == ("False", "RepositoryNotFound")
    assert weighted.ready("server-old") == ["p-2", "p-4"]


async def test_a_suspended_model_stands_still_with_its_weight(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.world.change(resources.MODEL, "my-model", suspend=True)
    weighted.asked = {1: (100, 0), 2: (0, 100)}
    await weighted.pass_by(hours=2)
    assert weighted.new() == ["p-1"]
    assert weighted.routes() == [weighed(10)] * 2


async def test_a_gateway_that_is_no_longer_wanted_goes_with_all_that_is_its(weighted):
    await weighted.begin()
    weighted.publish(1, 2)
    await weighted.settle()
    weighted.world.change(resources.INFERENCE_SERVER, "server", service={})
    await weighted.settle()
    assert weighted.routes() == []
    assert weighted.services() == []
    assert "has no service.gateway" in weighted.status()["message"]
    await weighted.pass_by(minutes=6)
    assert weighted.condition("Model", "my-model") == ("False", "RolledBack")


async def test_a_service_of_somebody_else_s_keeps_the_requests_where_they_are(weighted):
    await weighted.begin()
    taken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server-new", "namespace": "ns"}, "spec": {}}
    weighted.world.api.store(taken)
    weighted.publish(1, 2)
    await weighted.settle()
    assert weighted.routes() == [REST, REST]
    assert weighted.condition("InferenceServer", "server") == ("False", "NameTaken")


class Kill:
    """Ends the operator before its request ``number``: nothing of it reaches the API server from there on."""

    def __init__(self, weighted, number):
        self.weighted, self.number, self.requests = weighted, number, 0
        weighted.kill = self._refuse

    def _refuse(self, _words):
        self.requests += 1
        return ApiUnavailableError("killed") if self.requests >= self.number else None

    async def settle(self):
        """Where the operator is killed meanwhile, another one is started, with nothing but what is stored."""
        await self.weighted.settle()
        if self.requests >= self.number:
            self.weighted.kill = lambda _: None
            self.weighted.world.restart()
            await self.weighted.settle()


async def _forward(weighted, settle):
    weighted.publish(1, 2)
    await settle()
    weighted.asked = {1: (100, 0), 2: (10, 0)}
    seen = [(weighted.new(), weighted.routes())]
    for minutes in (1, 11):
        weighted.world.pass_by(minutes=minutes)
        await settle()
        seen.append((weighted.new(), weighted.routes()))
    weighted.world.change(resources.MODEL, "my-model", rollout={**CANARY, "promote": 2})
    await settle()
    return seen


async def _and_back(weighted, settle):
    weighted.publish(1, 2)
    await settle()
    seen = [(weighted.new(), weighted.routes())]
    weighted.asked = {1: (100, 0), 2: (8, 2)}
    weighted.world.pass_by(minutes=1)
    await settle()
    return seen


@pytest.mark.parametrize("story", [_forward, _and_back])
async def test_an_operator_that_is_killed_before_any_request_harms_nobody(manifest, story):
    """What :meth:`Weighted.check` asks holds at each of them; and the end is the same."""

    async def told(number):
        weighted = Weighted(World(manifest))
        await weighted.begin()
        kill = Kill(weighted, number)
        seen = await story(weighted, kill.settle)
        # Whoever begins anew waits for endpoints anew, so that all is some seconds later.
        status = {name: said for name, said in weighted.status().items() if not name.lower().endswith("since")}
        state = (weighted.new(), weighted.routes(), weighted.services(), status)
        return kill, (seen, state)

    undisturbed, expected = await told(10**9)
    assert undisturbed.requests > 20
    assert expected[1][1:3] == ([REST, REST], [])
    for number in range(1, undisturbed.requests + 1):
        _, found = await told(number)
        assert found == expected, f"killed before request {number}"
