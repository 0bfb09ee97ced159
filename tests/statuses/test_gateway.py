"""What a server says of its routes, from what Gateways say of them."""

import pytest

from gravswell_operator import conditions, state
from gravswell_operator.api import InferenceServer
from gravswell_operator.conditions import Reason
from gravswell_operator.state import RouteState
from gravswell_operator.statuses import gateway
from gravswell_operator.statuses.gateway import NOT_LOOKED, Routes, findings, lacking, obstacle

REST = (("digits", 1),)
WEIGHED = (("digits-old", 90), ("digits-new", 10))
GATE = {"name": "gate"}
TAKEN = RouteState(REST, seen=True)


def server(*said, http=True):
    spec = {"repositoryRef": {"name": "models"}, "tag": "24.08", "replicas": 2}
    if http:
        spec["service"] = {"gateway": {"http": {"parentRefs": [GATE]}}}
    metadata = {"name": "digits", "namespace": "team", "generation": 3}
    return InferenceServer.model_validate({"metadata": metadata, "spec": spec, "status": {"conditions": list(said)}})


def routes(http=TAKEN, **other):
    return Routes(found={"HTTPRoute": http, **other})


def said(status, reason, generation=3):
    return {
        "type": conditions.ROUTES_ACCEPTED,
        "status": status,
        "reason": reason,
        "message": "as before",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": generation,
    }


# What Gateways say.


def route(*parents, refs=(GATE,), generation=2):
    return state.route(
        {
            "metadata": {"name": "digits", "namespace": "team", "generation": generation},
            "spec": {
                "parentRefs": list(refs),
                "rules": [
                    {"backendRefs": [{"name": "digits-old", "weight": 90}, {"name": "digits-new", "weight": 10}]}
                ],
            },
            "status": {"parents": list(parents)},
        }
    )


def parent(ref=None, generation=2, **wrong):
    held = {"Accepted": "True", "ResolvedRefs": "True", **dict.fromkeys(wrong, "False")}
    conditions = [
        {
            "type": kind,
            "status": status,
            "observedGeneration": generation,
            "reason": "R",
            "message": wrong.get(kind, ""),
        }
        for kind, status in held.items()
    ]
    return {"parentRef": ref or GATE, "controllerName": "example.com/gateway", "conditions": conditions}


def test_a_route_is_taken_when_its_gateway_has_accepted_it_as_it_is_now():
    seen = route(parent())
    assert seen == RouteState(WEIGHED, seen=True)
    assert seen.taken


@pytest.mark.parametrize(
    ("parents", "refs"),
    [
        ((), [GATE]),
        ([parent(generation=1)], [GATE]),  # it has looked at an earlier one
        ([parent({"name": "other"})], [GATE]),
        ([parent({"name": "gate", "namespace": "infra"})], [GATE]),
        ([parent({"name": "gate", "sectionName": "web"})], [GATE]),
        ([parent()], [GATE, {"name": "other"}]),
        ([{**parent(), "conditions": parent()["conditions"][:1]}], [GATE]),
        ([{"parentRef": GATE, "controllerName": "c"}], [GATE]),
    ],
)
def test_until_each_gateway_has_looked_at_it_it_is_not(parents, refs):
    seen = route(*parents, refs=refs)
    assert not seen.seen
    assert not seen.taken
    assert not seen.refusal


def test_the_namespace_of_a_gateway_may_be_said_or_not():
    assert route(parent({"name": "gate", "namespace": "team", "group": "g", "kind": "Gateway"})).taken


def test_what_a_gateway_refuses_is_told_in_its_words():
    assert route(parent(Accepted="no listener allows it")).refusal == "Accepted is False: no listener allows it"
    assert route(parent(ResolvedRefs="no such Service")).refusal == "ResolvedRefs is False: no such Service"
    assert not route(parent(ResolvedRefs="")).taken
    others = [parent(), parent({"name": "other"}, Accepted="no")]
    assert route(*others, refs=[GATE, {"name": "other"}]).refusal == "Accepted is False: no"


def test_what_a_gateway_said_of_another_route_does_not_count():
    assert route(parent(generation=1, Accepted="no"), parent({"name": "gone"}, Accepted="no")).refusal == ""


def test_a_route_that_somebody_emptied_leads_nowhere():
    assert state.route({"metadata": {"name": "digits"}}) == RouteState((), seen=False)


# What a server says.


def condition(one, of):
    (found,) = findings(one, of)
    assert found.type == conditions.ROUTES_ACCEPTED
    return found.status, found.reason


def test_a_server_without_a_gateway_says_nothing():
    assert findings(server(http=False), Routes()) == []


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (routes(), (True, Reason.ROUTES_TAKEN)),
        (routes(GRPCRoute=TAKEN), (True, Reason.ROUTES_TAKEN)),
        (routes(None), (None, Reason.ROUTES_WAITING)),
        (routes(RouteState(REST, seen=False)), (None, Reason.ROUTES_WAITING)),
        (routes(GRPCRoute=RouteState(REST, seen=False)), (None, Reason.ROUTES_WAITING)),
        (routes(GRPCRoute=RouteState(REST, seen=True, refusal="no")), (False, Reason.ROUTE_REFUSED)),
        (routes(None, GRPCRoute=RouteState(REST, seen=False, refusal="no")), (False, Reason.ROUTE_REFUSED)),
        (Routes(NOT_LOOKED), (None, Reason.ROUTES_WAITING)),
        (Routes(gateway.missing("httproutes", "")), (False, Reason.GATEWAY_MISSING)),
        (Routes(gateway.missing("httproutes", "403: forbidden")), (False, Reason.FORBIDDEN)),
    ],
)
def test_what_a_server_says_of_its_routes(of, found):
    assert condition(server(), of) == found


@pytest.mark.parametrize("of", [Routes(NOT_LOOKED), routes(RouteState(WEIGHED, seen=False)), routes(None)])
def test_a_new_weight_and_a_new_operator_are_no_news(of):
    """A Gateway looks at the route again each time that its weights change."""
    taken, refused = said("True", "RoutesTaken"), said("False", "RouteRefused")
    assert condition(server(taken), of) == (True, Reason.ROUTES_TAKEN)
    assert condition(server(refused), of) == (False, Reason.ROUTE_REFUSED)
    changed = said("True", "RoutesTaken", generation=2)
    assert condition(server(changed), of) == (None, Reason.ROUTES_WAITING), "another spec may name another Gateway"


def test_messages_name_the_object_and_the_way_out():
    (refused,) = findings(server(), routes(RouteState(REST, seen=True, refusal="Accepted is False: no listener")))
    assert refused.message.startswith(
        "HTTPRoute digits: Accepted is False: no listener; kubectl describe httproute digits"
    )
    (waiting,) = findings(server(), routes(RouteState(REST, seen=False)))
    assert "listeners that allow routes from namespace team" in waiting.message
    (missing,) = findings(server(), Routes(gateway.missing("httproutes.gateway.networking.k8s.io/v1", "")))
    assert "does not know httproutes.gateway.networking.k8s.io/v1: install the Gateway API" in missing.message
    (forbidden,) = findings(server(), Routes(gateway.missing("httproutes", "403: no")))
    assert "gateway.enabled of its chart" in forbidden.message


# What a canary asks.


def test_why_a_canary_with_weights_cannot_begin():
    nowhere = obstacle(server(http=False), Routes())
    assert nowhere.reason is Reason.GATEWAY_MISSING
    assert "InferenceServer digits has no service.gateway: set it, or leave weight out" in nowhere.message
    assert obstacle(server(), routes()) is None
    assert obstacle(server(), Routes(NOT_LOOKED)) == NOT_LOOKED
    assert obstacle(server(), routes(None)).reason is Reason.ROUTES_WAITING


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (routes(RouteState(WEIGHED, seen=True)), ""),
        (routes(), "HTTPRoute digits is not there with the weights of digits-old 90 and digits-new 10 yet"),
        (routes(None), "HTTPRoute digits is not there with the weights of"),
        (routes(RouteState(WEIGHED, seen=True), GRPCRoute=TAKEN), "GRPCRoute digits is not there with the weights of"),
        (routes(RouteState(WEIGHED, seen=False)), "no Gateway of HTTPRoute digits has taken it yet as it is now"),
        (routes(RouteState(WEIGHED, seen=True, refusal="no")), "HTTPRoute digits: no;"),
        (Routes(gateway.missing("httproutes", "")), "the API server does not know httproutes"),
    ],
)
def test_what_a_weight_waits_for(of, words):
    said = lacking(server(), of, WEIGHED)
    assert said.startswith(words)
    assert bool(said) is bool(words)
