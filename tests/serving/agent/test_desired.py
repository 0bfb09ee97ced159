"""Where the desired state comes from, outside a cluster."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from aiohttp import web

from gravswell.errors import InvalidInputError
from gravswell.kube import backoff
from gravswell.kube.client import Client
from gravswell.kube.credentials import Account, Endpoint
from gravswell.quiver import ModelRepository
from gravswell.serving.agent import desired as sources
from gravswell.serving.agent.configmaps import ConfigMap
from gravswell.serving.agent.desired import ConfigMapSource, DesiredSource, FileSource, LatestSource, parse_desired
from gravswell.serving.agent.program import AgentOptions
from gravswell.serving.contracts import DESIRED_KEY, Desired, DesiredModel, Verification

from ...kube.conftest import Server, serving
from .running import until
from .versions import publish, publish_member, publish_pipeline


class Follower:
    """Follows a source in the background. An async context manager; ``seen`` holds what it said, each once."""

    def __init__(self, source: DesiredSource) -> None:
        self.seen: list[Desired] = []
        self._source = source

    def accept(self, desired: Desired) -> None:
        if not self.seen or self.seen[-1] != desired:
            self.seen.append(desired)

    async def __aenter__(self) -> "Follower":
        self._task = asyncio.create_task(self._source.follow(self.accept))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert not self._task.done(), "a source never ends"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def unreadable(repository: Path, version: str) -> None:
    """A version that cannot be read and appears at once: without a manifest it would be somebody else's."""
    stage = repository.with_name("unreadable")
    stage.mkdir()
    (stage / ".manifest.json").symlink_to(".manifest.json")
    stage.rename(repository / version)


@pytest.mark.parametrize(
    ("seconds", "cut", "least", "most"), [(0.4, True, 0.5, 1), (0, True, 8, 32), (0, False, 8, 32)]
)
async def test_a_watch_that_worked_is_opened_anew_soon_and_one_that_never_does_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, seconds: float, cut: bool, least: float, most: float
):
    """Nothing may be desired anew for days, and something on the way may end idle connections."""
    pauses = []

    class Told(backoff.Backoff):
        def failed(self, error: Exception | None = None) -> float:
            pauses.append(super().failed(error))
            return 0.0

    if seconds:
        monkeypatch.setattr(backoff, "STEADY_WATCH_SECONDS", seconds / 4)
    monkeypatch.setattr(sources, "Backoff", Told)
    wanted = Desired(repository="r")
    metadata = {"name": "s-desired", "resourceVersion": "1", "uid": "u"}

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"metadata": metadata, "data": {DESIRED_KEY: wanted.to_json()}})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await asyncio.sleep(seconds)
        if cut:
            assert request.transport is not None
            request.transport.close()
        return response

    server = Server()
    server.handler = answer
    async with serving(server) as address, Client(Account(Endpoint(f"http://{address}")), name="tester") as client:
        async with Follower(ConfigMapSource(ConfigMap(client, "ns", "s-desired"))) as follower:
            await until(lambda: len(pauses) >= 5, "five watches")
        assert follower.seen == [wanted]
    assert least <= pauses[4] <= most


async def test_a_file_that_changes_breaks_and_heals(tmp_path: Path):
    path = tmp_path / "desired.json"
    first = Desired(repository="r", models=(DesiredModel(name="m", version=1, digest="1" * 64),))
    async with Follower(FileSource(path, 0.02)) as follower:
        await asyncio.sleep(0.1)
        path.write_text(first.to_json())
        await until(lambda: follower.seen == [first], "the first state")
        path.write_text('{"models": [{"name": "m", "version": 0}]}')
        await asyncio.sleep(0.1)
        path.write_bytes(b"\xff\xfe")
        await asyncio.sleep(0.1)
        path.unlink()
        await asyncio.sleep(0.1)
        assert follower.seen == [first], "what cannot be read changes nothing"
        empty = Desired(repository="r")
        path.write_text(empty.to_json())
        await until(lambda: follower.seen == [first, empty], "the second state")


async def test_the_latest_of_every_entry(repository: Path):
    first = publish(repository, "a", 1, 1.0)
    for theirs in ("b/3", "gravswell-proof-x/1", os.fsdecode(b"bad\xff/1")):
        shutil.copytree(repository / "a/1", repository / theirs, ignore=shutil.ignore_patterns(".*"))
    async with Follower(LatestSource(str(repository), 0.02)) as follower:
        await until(lambda: len(follower.seen) == 1, "the first state")
        assert follower.seen[0].models == (
            DesiredModel(name="a", version=1, digest=first),
            DesiredModel(name="b", version=3, verification=Verification.NONE),
        )
        away = repository.rename(repository.with_name("away"))  # noqa: ASYNC240  a rename waits for nothing
        await asyncio.sleep(0.1)
        assert len(follower.seen) == 1, "a repository that is away changes nothing"
        second = publish(away, "a", 2, 2.0)
        away.rename(repository)
        await until(lambda: len(follower.seen) == 2, "the new version")
        assert follower.seen[1].models[0] == DesiredModel(name="a", version=2, digest=second)


async def test_what_only_pipelines_call_is_not_served_beside_them(repository: Path):
    factor = publish_member(repository, "factor", 1, 3.0)
    publish(repository, "other", 1, 1.0)
    publish_pipeline(repository, "chain", 1, 9.0, factor, factor)
    async with Follower(LatestSource(str(repository), 0.02)) as follower:
        await until(lambda: len(follower.seen) == 1, "the first state")
        assert [model.name for model in follower.seen[0].models] == ["chain", "other"]


async def test_a_pipeline_that_cannot_be_read_shows_nothing_that_it_keeps_private(repository: Path):
    factor = publish_member(repository, "factor", 1, 3.0)
    publish_pipeline(repository, "chain", 1, 9.0, factor, factor)
    async with Follower(LatestSource(str(repository), 0.02)) as follower:
        await until(lambda: len(follower.seen) == 1, "the first state")
        unreadable(repository, "chain/2")
        publish(repository, "other", 1, 1.0)
        await until(lambda: len(follower.seen) == 2, "the other")
        assert [model.name for model in follower.seen[1].models] == ["chain", "other"]


async def test_an_entry_that_cannot_be_read_stays_and_hides_no_other(repository: Path, caplog):
    first = publish(repository, "a", 1, 1.0)
    publish(repository, "b", 1, 1.0)
    async with Follower(LatestSource(str(repository), 0.02)) as follower:
        await until(lambda: len(follower.seen) == 1, "the first state")
        unreadable(repository, "a/2")
        second = publish(repository, "b", 2, 2.0)
        await until(lambda: len(follower.seen) == 2, "the new version of the other")
        assert follower.seen[1].models == (
            DesiredModel(name="a", version=1, digest=first),
            DesiredModel(name="b", version=2, digest=second),
        )
        await asyncio.sleep(0.2)
    ours = [record for record in caplog.records if record.name == sources.__name__]
    (warning,) = [record.getMessage() for record in ours if record.levelname == "WARNING"]
    assert "a/2/.manifest.json" in warning


async def test_a_repository_that_is_empty_all_at_once_is_away(repository: Path, caplog):
    """As the mount point of a volume that is not mounted; what our own removals leave tells the difference."""
    publish(repository, "a", 1, 1.0)
    async with Follower(LatestSource(str(repository), 0.02)) as follower:
        await until(lambda: len(follower.seen) == 1, "the first state")
        last = follower.seen[0]
    away = repository.rename(repository.with_name("away"))  # noqa: ASYNC240  it waits for nothing
    repository.mkdir()  # noqa: ASYNC240
    (repository / "lost+found").mkdir()
    async with Follower(LatestSource(str(repository), 0.02, last=last)) as follower:
        await until(lambda: "is its volume mounted?" in caplog.text, "it is told")
        assert follower.seen == []
        shutil.rmtree(repository)
        away.rename(repository)
        await until(lambda: follower.seen == [last], "it is mounted again")
        ModelRepository.open(repository).remove("a")
        await until(lambda: follower.seen[1:] == [Desired(repository=str(repository))], "a removal is one")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the document: Invalid JSON"),
        (b"\xff", "the document: Invalid JSON"),
        ("{}", "repository"),
        ('{"repository": "r", "models": [{"name": "m", "version": 0}]}', "models.0.version"),
        ('{"repository": "r", "models": [{"name": "m", "version": 1, "digest": "x"}]}', "models.0.digest"),
        ('{"repository": "r", "models": [{"name": "m", "version": 1000000000000000000}]}', "models.0.version"),
        (
            '{"repository": "r", "models": [{"name": "m", "version": 1}, {"name": "m", "version": 2}]}',
            "'m' is named more",
        ),
        ('{"repository": "r", "models": [{"name": "gravswell-proof-x", "version": 1}]}', "models.0.name: .*rename"),
        ('{"schema": "gravswell.dev/desired/v9", "repository": "r"}', "schema"),
    ],
)
def test_what_is_no_desired_state(text: str | bytes, words: str):
    with pytest.raises(InvalidInputError, match=f"here holds no desired state: .*{words}"):
        parse_desired(text, where="here")


def test_unknown_fields_of_a_newer_operator_are_ignored():
    text = '{"repository": "r", "new": 1, "models": [{"name": "m", "version": 1, "new": {}}]}'
    assert parse_desired(text, where="here").models == (DesiredModel(name="m", version=1),)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "exactly one of"),
        ({"follow_latest": True, "desired_configmap": "c"}, "exactly one of"),
        ({"follow_latest": True, "desired_file": Path("f")}, "exactly one of"),
        ({"follow_latest": True, "rank": 0}, "with --follow-latest every entry is served whole"),
    ],
)
def test_what_is_to_be_served_is_said_once(given, told):
    options = AgentOptions(repository="r", models=Path("m"), listen="127.0.0.1:0", triton_http="x:1", **given)
    with pytest.raises(InvalidInputError, match=told):
        options.check()
