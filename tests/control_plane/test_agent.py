"""The agent and the lister against a real API server, with the rights of their Roles and no more."""

# ruff: noqa: F811  fixtures that are imported are asked for by name

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from gravswell.errors import AccessDeniedError, NotFoundError
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.quiver.manifest import digest_of
from gravswell.serving.agent import configmaps, reporting
from gravswell.serving.agent.configmaps import ConfigMap
from gravswell.serving.agent.lister import Lister
from gravswell.serving.agent.program import AGENT, AgentOptions
from gravswell.serving.agent.work import Pace
from gravswell.serving.contracts import (
    DESIRED_KEY,
    LISTING_KEY,
    Desired,
    DesiredModel,
    Listing,
    ModelState,
    Report,
    report_configmap,
    report_part,
)

from ..serving.agent.conftest import models, repository, triton  # noqa: F401  fixtures
from ..serving.agent.running import KEY, running, until
from ..serving.agent.versions import publish
from .operating import may, wait_until

POD = "digits-6c5f7d-abcde"
FULL = json.dumps({"data": {"others": "x" * (1024 * 1024 - 100)}})
"""As much as a ConfigMap holds, but for less than any report."""
RIGHTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: digits-agent}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: digits-desired}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: digits-report}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: digits-report-1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: digits-report-2}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: digits-report-3}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: zoo-listing}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: digits-agent}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [digits-desired], verbs: [get, list, watch]}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [digits-report, digits-report-1, digits-report-2, digits-report-3, zoo-listing]
  verbs: [get, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: digits-agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: digits-agent}
subjects: [{kind: ServiceAccount, name: digits-agent}]
"""


class Rights:
    """A namespace as the operator leaves it for a server; its methods are the administrator's."""

    def __init__(self, kubectl: Callable[..., str], namespace: str) -> None:
        self.namespace = namespace
        self._kubectl = kubectl
        self("apply", "-f", "-", stdin=RIGHTS)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return self._kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def token(self) -> str:
        return self("create", "token", "digits-agent").strip()

    def desire(self, desired: Desired) -> None:
        self._merge("digits-desired", {DESIRED_KEY: desired.to_json()})

    def _merge(self, name: str, data: dict[str, str | None]) -> None:
        self("patch", "configmap", name, "--type=merge", "-p", json.dumps({"data": data}))

    def make_room(self, name: str) -> None:
        """Remove what :data:`FULL` holds."""
        self._merge(name, {"others": None})

    def list_as(self, text: str | None) -> None:
        """Write over the listing, or remove it."""
        self._merge("zoo-listing", {LISTING_KEY: text})

    def forget_report(self) -> None:
        self._merge("digits-report", {POD: None})

    def data(self, name: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(self("get", "configmap", name, "-o", "json")).get("data") or {}
        return found

    def report(self) -> Report | None:
        text = self.data("digits-report").get(POD)
        return Report.model_validate_json(text) if text else None

    def listing(self) -> Listing | None:
        text = self.data("zoo-listing").get(LISTING_KEY)
        return Listing.model_validate_json(text) if text else None


@pytest.fixture
def rights(cluster, kubectl, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rights:
    made = Rights(kubectl, namespace)
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text(made.token())
    (folder / "ca.crt").write_bytes((cluster.pki / "ca.crt").read_bytes())
    (folder / "namespace").write_text(namespace)
    host, port = cluster.server_url.removeprefix("https://").split(":")
    monkeypatch.setenv(credentials.FOLDER_ENV, str(folder))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    # The API server knows of a Role a moment after it has stored it, and refuses what is asked before.
    agent = f"system:serviceaccount:{namespace}:digits-agent"
    wait_until(lambda: may(cluster, agent, "patch", "configmaps/digits-report", "-n", namespace))
    return made


def agent(repository: Path, models: Path, triton_http: str) -> AbstractAsyncContextManager[object]:
    """An agent with the rights of its Role, in the pod :data:`POD`."""
    key_file = models.with_name("key")
    key_file.write_text(KEY)
    options = AgentOptions(
        repository=str(repository),
        models=models,
        listen="127.0.0.1:0",
        triton_http=triton_http,
        desired_configmap="digits-desired",
        report_configmap="digits-report",
        pod=POD,
        key_file=key_file,
        cpu_only=True,
        simulated_gpus=True,
        pace=Pace(tick=0.5, first_retry=0.5),
    )
    return running(options)


async def told(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition``, which asks the API server, holds."""
    await until(condition, what, in_thread=True)


async def test_desired_is_watched_and_what_serves_is_reported(rights, repository, triton, models):
    first, second = publish(repository, "scale", 1, 1.0), publish(repository, "scale", 2, 2.0)

    def serves(desired: Desired) -> Callable[[], bool]:
        def check() -> bool:
            report = rights.report()
            return (
                report is not None
                and report.ready == bool(desired.models)
                and report.revision == desired.revision
                and [(model.name, model.state, model.loaded_digest) for model in report.models]
                == [(model.name, ModelState.SERVING, model.digest) for model in desired.models]
            )

        return check

    async with agent(repository, models, triton.http_address):
        await told(rights.report, "a first report, before anything is desired")
        report = rights.report()
        assert (report.revision, report.ready, report.pod, report.simulated_gpus) == ("", False, POD, True)

        for version, digest in ((1, first), (2, second), (1, first)):
            model = DesiredModel(name="scale", version=version, digest=digest)
            desired = Desired(repository="file:///repository", models=(model,))
            rights.desire(desired)
            await told(serves(desired), f"version {version} is reported")
        rights("patch", "configmap", "digits-desired", "--type=merge", "-p", '{"data": {"desired.json": "{"}}')
        rights("delete", "configmap", "digits-desired")
        await asyncio.sleep(2.0)
        assert serves(desired)(), "a desired state that is broken or gone changes nothing"
        rights("apply", "-f", "-", stdin=RIGHTS)
        empty = Desired(repository="file:///repository")
        rights.desire(empty)
        await told(serves(empty), "an empty desired state is obeyed")
        await told(lambda: triton.served() == [], "what is no longer desired is unloaded")


async def test_a_report_that_somebody_removed_is_written_again(rights, repository, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "CHECK_SECONDS", 0.5)
    async with agent(repository, tmp_path / "models", "127.0.0.1:1"):
        await told(rights.report, "a first report")
        rights.desire(
            Desired(repository="r", models=(DesiredModel(name="scale", version=1, digest=digest_of(b"none")),))
        )
        await told(lambda: (report := rights.report()) and report.models, "the model is reported")
        rights.forget_report()
        await told(rights.report, "the report is there again")
        rights("delete", "configmap", "digits-report")
        await asyncio.sleep(1.0)  # it is missed, and nobody but the operator may make it
        rights("apply", "-f", "-", stdin=RIGHTS)
        await told(rights.report, "the report is in the new ConfigMap")


async def test_a_report_goes_where_there_is_room_for_it(rights, repository, tmp_path, monkeypatch):
    """Reports of many replicas are divided: each agent has its ConfigMap, and takes the next where that is full."""
    monkeypatch.setattr(reporting, "CHECK_SECONDS", 0.5)
    places = [report_configmap("digits-report", part) for part in range(4)]
    own = report_part(POD, 4)
    assert own  # not the first, where it is at first

    def has_it() -> list[str]:
        return [place for place in places if POD in rights.data(place)]

    def desired(reports: int) -> Desired:
        models = (DesiredModel(name="scale", version=1, digest=digest_of(b"none")),)
        return Desired(repository="r", models=models, reports=reports)

    async with agent(repository, tmp_path / "models", "127.0.0.1:1"):
        await told(lambda: has_it() == places[:1], "it is in the first before it was told of others")
        rights.desire(desired(4))
        await told(lambda: has_it() == [places[own]], "it has gone to its own")
        rights.desire(desired(1))
        await told(lambda: has_it() == places[:1], "it is back")
        rights("patch", "configmap", places[own], "--type=merge", "--patch-file=/dev/stdin", stdin=FULL)
        rights.desire(desired(4))
        await told(lambda: has_it() == [places[(own + 1) % 4]], "its own is full, and it is in the next")
        text = rights.data(has_it()[0])[POD]
        assert Report.model_validate_json(text).models
    rights.make_room(places[own])
    async with agent(repository, tmp_path / "models", "127.0.0.1:1"):
        await told(lambda: has_it() == [places[own]], "the next agent of the pod leaves none where the last one had it")


async def test_credentials_that_are_refused_are_tried_again(rights, repository, tmp_path, monkeypatch):
    monkeypatch.setattr(credentials, "RELOAD_SECONDS", 0.0)
    token = tmp_path / "serviceaccount/token"
    good = token.read_text()
    token.write_text("not a token")
    async with agent(repository, tmp_path / "models", "127.0.0.1:1"):
        await asyncio.sleep(1.0)
        assert rights.report() is None
        token.write_text(good)
        await told(rights.report, "a report, once the token is good")


async def test_the_role_allows_two_configmaps_and_nothing_else(rights):
    async with Client(credentials.in_cluster(), name=AGENT) as client:
        for name in ("digits-desired", "digits-report", "zoo-listing"):
            assert (await ConfigMap(client, rights.namespace, name).read()).data == {}
        with pytest.raises(AccessDeniedError, match="refuses this ServiceAccount"):
            await ConfigMap(client, rights.namespace, "other").read()
        with pytest.raises(AccessDeniedError):
            await ConfigMap(client, rights.namespace, "digits-desired").merge({"x": "y"})
        with pytest.raises(AccessDeniedError):
            async for _ in ConfigMap(client, rights.namespace, "other").watch("0"):
                pass
        rights("delete", "configmap", "zoo-listing")
        with pytest.raises(NotFoundError, match="the operator makes it"):
            await ConfigMap(client, rights.namespace, "zoo-listing").read()


async def test_a_watch_sees_changes_and_its_end(rights, monkeypatch):
    monkeypatch.setattr(configmaps, "WATCH_SECONDS", 3)
    async with Client(credentials.in_cluster(), name=AGENT) as client:
        desired = ConfigMap(client, rights.namespace, "digits-desired")
        start = await desired.read()
        rights.desire(Desired(repository="r"))
        seen = [snapshot.data async for snapshot in desired.watch(start.resource_version)]
        assert seen == [{DESIRED_KEY: Desired(repository="r").to_json()}]


async def test_the_lister_writes_what_changes(rights, repository):
    first = publish(repository, "scale", 1, 1.0)
    async with Client(credentials.in_cluster(), name=AGENT) as client:
        lister = Lister(str(repository), ConfigMap(client, rights.namespace, "zoo-listing"), 0.2)
        task = asyncio.create_task(lister.run())
        try:
            await told(rights.listing, "a listing")
            assert [version.digest for version in rights.listing().entries[0].versions] == [first]
            written = rights("get", "configmap", "zoo-listing", "-o", "jsonpath={.metadata.resourceVersion}")
            await asyncio.sleep(1.0)
            assert rights("get", "configmap", "zoo-listing", "-o", "jsonpath={.metadata.resourceVersion}") == written

            for damaged in (None, "{", '{"repository": "other"}'):
                rights.list_as(damaged)
                await told(lambda: rights.data("zoo-listing").get(LISTING_KEY) != damaged, "it is mended")  # noqa: B023
                assert [version.digest for version in rights.listing().entries[0].versions] == [first]

            second = publish(repository, "scale", 2, 2.0)
            await told(lambda: len(rights.listing().entries[0].versions) == 2, "the new version")
            assert rights.listing().entries[0].versions[0].digest == second

            away = repository.rename(repository.with_name("away"))
            await told(lambda: not rights.listing().accessible, "the repository is away")
            assert rights.listing().reason == "RepositoryNotFound"
            assert len(rights.listing().entries[0].versions) == 2, "the last that was seen"
            away.rename(repository)
            await told(lambda: rights.listing().accessible, "the repository is back")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
