"""A server behind a Gateway, in the engine: four replicas, whose agents and whose Gateway do at once as they are told.

Before each request of the operator it is checked that nobody could be harmed by what is stored then: the operator may
end at any of them.
"""

from typing import Any

from gravswell.serving.contracts import (
    DESIRED_KEY,
    LISTING_KEY,
    Desired,
    DesiredModel,
    ListedEntry,
    ListedVersion,
    Listing,
    ModelReport,
    ModelState,
    Report,
    Traffic,
)
from gravswell_operator.cluster import resources
from gravswell_operator.reconcile.gateway import SETTLE_SECONDS

from .conftest import World

NAMES = ("p-1", "p-2", "p-3", "p-4")
GATE = {"name": "gate", "namespace": "infra"}
GATEWAY = {
    "http": {"parentRefs": [GATE], "hostnames": ["models.example.com"]},
    "grpc": {"parentRefs": [GATE], "hostnames": ["grpc.example.com"]},
}
KINDS = (*resources.ROUTES, resources.ENDPOINT_SLICE)
STEPS = [
    {"replicas": 1, "pause": "10m", "weight": "10%"},
    {"replicas": "50%", "pause": "Manual", "weight": "30%"},
]
CANARY = {
    "strategy": "Canary",
    "canary": {"steps": STEPS, "judge": {"minRequests": 10}, "progressDeadline": "5m"},
}
REST = {"server": 1}


def weighed(new: int) -> dict[str, int]:
    return {"server-old": 100 - new, "server-new": new}


class Weighted:
    """The world of these tests."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: dict[int, tuple[int, int]] = {}
        """What clients asked of a version since its window began: succeeded, failed."""
        self.slow: set[str] = set()
        """The pods whose agents do nothing for now."""
        self.takes = True
        """The Gateway's controller runs."""
        self.refuses = ""
        """Why the Gateway takes no route."""
        self.installed: str | None = None
        """Why the kinds of the Gateway API cannot be watched; None: they can."""
        self.kill = lambda _: None
        """Asked before each request; what it returns is raised."""
        world.api.refuse = self._asked

    async def begin(self, *models: str, gateway: dict[str, Any] | None = GATEWAY) -> None:
        """Version 1 of each Model serves."""
        world = self.world
        world.own(resources.MODEL_REPOSITORY)
        spec = {"nodePoolRef": None, "gpus": 0, "service": {"gateway": gateway} if gateway else {}}
        world.own(resources.INFERENCE_SERVER, {"spec": spec})
        for name in models or ("my-model",):
            world.own(resources.MODEL, {"metadata": {"name": name}, "spec": {"entry": name, "rollout": CANARY}})
        await world.settle()
        self.publish(1)
        for name in NAMES:
            self.pod(name)
        await self.settle()

    def publish(self, *numbers: int) -> None:
        """Every entry has these versions."""
        versions = tuple(ListedVersion(number=n, digest=f"{n:064x}") for n in sorted(numbers, reverse=True))
        entries = tuple(ListedEntry(name=name, versions=versions) for name in ("my-model", "other"))
        url = "pvc://claim/folder"
        listing = Listing(repository=url, observed_at=self.world.now, accessible=True, entries=entries)
        found = self.world.get("ConfigMap", "models-listing")
        assert found is not None
        self.world.see(resources.CONFIG_MAP, {**found, "data": {**found["data"], LISTING_KEY: listing.to_json()}})

    def pod(self, name: str, *, ready: bool = True, deleted: bool = False) -> None:
        """A replica, as a watch shows it."""
        metadata = {"name": name, "namespace": "ns", "labels": {"gravswell.dev/server": "server"}}
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"phase": "Running", "conditions": conditions, "podIP": f"10.0.0.{name[-1]}"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": status}
        self.world.see(resources.POD, body, deleted=deleted)

    # What agents and the Gateway's controller do.

    async def settle(self) -> None:
        """Until nobody has anything new to say, and routes wait for no endpoints any more."""
        waited = False
        for _ in range(60):
            await self.world.settle()
            if self._look() or self._obey() or self._take():
                waited = False
            elif self.world.context.settling and not waited:
                self.world.pass_by(seconds=SETTLE_SECONDS)
                waited = True
            else:
                return
        raise AssertionError("it never settles")

    async def pass_by(self, **span: float) -> None:
        self.world.pass_by(**span)
        await self.settle()

    def _look(self) -> bool:
        optional = self.world.context.optional
        news = [kind for kind in KINDS if kind not in optional or optional[kind] != self.installed]
        for kind in news:
            self.world.context.found(kind, self.installed)
        return bool(news)

    def uninstall(self) -> None:
        """The Gateway API's definitions go, and all routes with them."""
        self.installed = ""
        for key in [key for key in self.world.api.objects if key[0] in ("HTTPRoute", "GRPCRoute")]:
            del self.world.api.objects[key]
        for kind in resources.ROUTES:
            for record in self.world.context.cache.all(kind):
                self.world.context.forget(record)
            self.world.context.found(kind, "")

    def _obey(self) -> bool:
        found = self.world.get("ConfigMap", "server-report")
        assert found is not None
        there = [name for name in NAMES if name not in self.slow and self.world.get("Pod", name) is not None]
        data = {**found.get("data", {}), **{name: self._report(name) for name in there}}
        if data == found.get("data"):
            return False
        self.world.see(resources.CONFIG_MAP, {**found, "data": data})
        return True

    def _report(self, name: str) -> str:
        said = []
        for model in self.told.models:
            own, traffic = model.on(name), None
            if model.canary is not None:
                succeeded, failed = self.asked.get(own.version, (0, 0))
                traffic = Traffic(window=model.canary.window, succeeded=succeeded, failed=failed)
            serves = {"loaded_version": own.version, "loaded_digest": own.digest, "verified": True}
            wanted = {"desired_version": own.version, "desired_digest": own.digest}
            said.append(ModelReport(name=model.name, state=ModelState.SERVING, traffic=traffic, **wanted, **serves))
        return Report(pod=name, ready=True, models=tuple(said)).to_json()

    def _take(self) -> bool:
        """As the Gateway's controller, which says of each route what it makes of it as it is now."""
        if not self.takes:
            return False
        news = False
        for kind in resources.ROUTES:
            route = self.world.get(kind.kind, "server")
            if route is None:
                continue
            generation, accepted = route["metadata"]["generation"], "False" if self.refuses else "True"
            held = {"Accepted": (accepted, self.refuses), "ResolvedRefs": ("True", "")}
            conditions = [
                {"type": kind, "status": status, "message": message, "reason": "R", "observedGeneration": generation}
                for kind, (status, message) in held.items()
            ]
            parents = [{"parentRef": GATE, "controllerName": "c", "conditions": conditions}]
            if route.get("status") != {"parents": parents}:
                self.world.see(kind, {**route, "status": {"parents": parents}})
                news = True
        return news

    # What there is.

    @property
    def told(self) -> Desired:
        found = self.world.get("ConfigMap", "server-desired")
        assert found is not None
        return Desired.model_validate_json(found["data"][DESIRED_KEY])

    def told_of(self, entry: str = "my-model") -> DesiredModel:
        return next(model for model in self.told.models if model.name == entry)

    def new(self, entry: str = "my-model") -> list[str]:
        """The pods that are told version 2."""
        return [name for name in NAMES if self.told_of(entry).on(name).version == 2]

    def status(self, model: str = "my-model") -> dict[str, Any]:
        found = self.world.get("Model", model)
        assert found is not None
        return found["status"].get("rollout", {})

    def condition(self, kind: str, name: str, type_: str = "Ready") -> tuple[str, str]:
        found = self.world.condition(kind, name, type_)
        return found["status"], found["reason"]

    def routes(self) -> list[dict[str, int]]:
        """The weights by Service, of each route that is there."""
        found = [self.world.get(kind.kind, "server") for kind in resources.ROUTES]
        rules = [route["spec"]["rules"][0]["backendRefs"] for route in found if route is not None]
        return [{backend["name"]: backend["weight"] for backend in rule} for rule in rules]

    def services(self) -> list[str]:
        """The Services of a canary that are there, and their slices."""
        sides = ("server-old", "server-new")
        found = [s for s in sides if self.world.get("Service", s) is not None]
        return found + [f"{s}-ipv4" for s in sides if self.world.get("EndpointSlice", f"{s}-ipv4") is not None]

    def ready(self, service: str) -> list[str]:
        """The pods that take requests to a Service of a canary."""
        found = self.world.get("EndpointSlice", f"{service}-ipv4")
        there = found["endpoints"] if found is not None else []
        return [endpoint["targetRef"]["name"] for endpoint in there if endpoint["conditions"]["ready"]]

    def serving(self, version: int, entry: str = "my-model") -> set[str]:
        """The pods on which a version takes traffic."""
        found = self.world.get("ConfigMap", "server-report")
        reports = [Report.model_validate_json(text) for text in ((found or {}).get("data") or {}).values()]
        said = {report.pod: report.of(entry) for report in reports}
        return {pod for pod, model in said.items() if model is not None and model.loaded_version == version}

    # What may never be.

    def _asked(self, words: str) -> Exception | None:
        self.check(words)
        return self.kill(words)

    def check(self, words: str) -> None:
        """Nobody is harmed if the operator ends here."""
        routes = self.routes()
        for backends in routes:
            for service, weight in backends.items():
                assert self.world.get("Service", service) is not None, f"{words}: a route names {service}"
                if service != "server" and weight:
                    assert self.ready(service), f"{words}: a route sends requests to nobody in {service}"
        desired = self.world.get("ConfigMap", "server-desired")
        found = self.told_of() if desired is not None and self.told.models else None
        for backends in routes:
            if found is None or found.version != 1:
                continue  # the new one was found good, and may take requests anywhere
            if found.canary is not None:
                assert "server-new" in backends, f"{words}: the new version takes part in everything"
                assert not backends["server-new"] or set(self.ready("server-new")) <= self.serving(2), words
            elif self.serving(2):
                assert backends.get("server-new") == 0, f"{words}: what was rolled back still gets requests"
