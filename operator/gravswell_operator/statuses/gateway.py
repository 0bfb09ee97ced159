"""The routes by which a Gateway leads to a server: whether they are there and taken, and what a canary waits for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gravswell_operator import conditions
from gravswell_operator.api import ConditionStatus, InferenceServer
from gravswell_operator.conditions import Finding, Reason
from gravswell_operator.desired.gateway import Backends
from gravswell_operator.state import Problem, RouteState


@dataclass(frozen=True)
class Routes:
    """What is seen of a server's routes."""

    obstacle: Problem | None = None
    """Why they are not made or changed, where there shall be some."""
    found: Mapping[str, RouteState | None] = field(default_factory=dict)
    """By kind, those that there shall be; None: it is not there."""


@dataclass(frozen=True)
class Weighing:
    """What the weights of a canary depend on, beside its own replicas."""

    obstacle: Problem | None = None
    """Why the server's routes can give no weight to anything."""
    turn: str = ""
    """The Model whose canary has the weights of the routes, or gets them next; empty: nobody asks."""
    lacking: str = ""
    """What keeps the Gateway from sending requests as it shall now, in words; empty where it does."""
    percent: int | None = None
    """What the new replicas get by the routes now; None while these make no difference between replicas."""


NOT_LOOKED = Problem(Reason.ROUTES_WAITING, "nobody has looked yet whether the Gateway API is installed")


def missing(kind: str, why: str) -> Problem:
    """Why routes are left alone: an empty ``why`` where the API server does not know ``kind``."""
    if why:
        return Problem(
            Reason.FORBIDDEN,
            f"{kind} cannot be watched: {why}; let the operator have them (gateway.enabled of its chart), or leave "
            "service.gateway out here; a route that is there stays as it is",
        )
    return Problem(
        Reason.GATEWAY_MISSING,
        f"the API server does not know {kind}: install the Gateway API's definitions and a controller of Gateways, or "
        "leave it out of service.gateway",
    )


def findings(server: InferenceServer, routes: Routes) -> list[Finding]:
    """The condition RoutesAccepted; none without a gateway."""
    if server.spec.service.gateway is None:
        return []
    said = next((c for c in server.status.conditions if c.type == conditions.ROUTES_ACCEPTED), None)
    problem = routes.obstacle or _problem(server, routes)
    if problem is None:
        message = f"{_all_of(server, routes)} taken by each Gateway that is named"
        return [Finding(conditions.ROUTES_ACCEPTED, True, Reason.ROUTES_TAKEN, message)]
    if problem.reason is not Reason.ROUTES_WAITING:
        return [Finding(conditions.ROUTES_ACCEPTED, False, problem.reason, problem.message)]
    if said is not None and said.observed_generation == server.metadata.generation:
        # An operator that starts anew has not looked yet, and a Gateway looks again at each new weight: no news.
        status = {ConditionStatus.TRUE: True, ConditionStatus.FALSE: False}.get(said.status)
        if status is not None:
            return [Finding(said.type, status, said.reason, said.message)]
    return [Finding(conditions.ROUTES_ACCEPTED, None, problem.reason, problem.message)]


def _all_of(server: InferenceServer, routes: Routes) -> str:
    name = server.metadata.name
    named = [f"{kind} {name}" for kind in routes.found]
    return f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'}"


def _problem(server: InferenceServer, routes: Routes) -> Problem | None:
    """The first reason why a Gateway does not send requests by the routes as they are now."""
    name, namespace = server.metadata.name, server.metadata.namespace
    for kind, found in routes.found.items():
        if found is not None and found.refusal:
            words = f"{kind} {name}: {found.refusal}; kubectl describe {kind.lower()} {name} says more"
            return Problem(Reason.ROUTE_REFUSED, words)
    for kind, found in routes.found.items():
        if found is None:
            return Problem(Reason.ROUTES_WAITING, f"{kind} {name} is not made yet")
        if not found.seen:
            return Problem(
                Reason.ROUTES_WAITING,
                f"no Gateway of {kind} {name} has taken it yet as it is now: its parentRefs must name Gateways that "
                f"are there, with listeners that allow routes from namespace {namespace}",
            )
    return None


def obstacle(server: InferenceServer, routes: Routes) -> Problem | None:
    """Why a canary with weights cannot begin on the server."""
    if server.spec.service.gateway is None:
        return Problem(
            Reason.GATEWAY_MISSING,
            "a weight is a share of what comes through a Gateway, and InferenceServer "
            f"{server.metadata.name} has no service.gateway: set it, or leave weight out of the canary's steps",
        )
    return routes.obstacle or _problem(server, routes)


def lacking(server: InferenceServer, routes: Routes, wanted: Backends) -> str:
    """Why the Gateway does not send requests as is ``wanted``, in words; empty where it does."""
    if (problem := obstacle(server, routes)) is not None and problem.reason is not Reason.ROUTES_WAITING:
        return problem.message
    for kind, found in routes.found.items():
        if found is None or found.backends != wanted:
            weights = " and ".join(f"{service} {weight}" for service, weight in wanted)
            return f"{kind} {server.metadata.name} is not there with the weights of {weights} yet"
    return problem.message if problem is not None else ""
