"""The lister: what it says of a repository, and when."""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from gravswell.cli.app import app
from gravswell.errors import AccessDeniedError, NotFoundError
from gravswell.quiver import ModelRepository
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import Children
from gravswell.quiver.stores.local import LocalStore
from gravswell.serving.agent import lister
from gravswell.serving.agent.configmaps import Snapshot
from gravswell.serving.agent.desired import LatestSource
from gravswell.serving.agent.lister import (
    HEARTBEAT,
    Lister,
    list_repository,
    merged,
    must_write,
    trimmed,
)
from gravswell.serving.agent.server import ListerServer
from gravswell.serving.contracts import LISTING_KEY, ListedEntry, ListedVersion, Listing, Reason

from .versions import publish, publish_member, publish_pipeline

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_entries_versions_and_digests(repository: Path):
    first, second = publish(repository, "m", 1, 1.0), publish(repository, "m", 2, 2.0)
    for theirs in ("theirs/7", "gravswell-proof-x/1"):
        shutil.copytree(repository / "m/1", repository / theirs, ignore=shutil.ignore_patterns(".*"))
    listing = list_repository(str(repository), NOW)
    assert listing.accessible
    assert listing.observed_at == NOW
    mine, theirs = listing.entries
    assert [(version.number, version.digest) for version in mine.versions] == [(2, second), (1, first)]
    assert mine.versions[0].size == sum(path.stat().st_size for path in (repository / "m/2").iterdir())
    assert [(version.number, version.digest) for version in theirs.versions] == [(7, None)]
    assert {(version.opset, version.ir_version) for version in mine.versions} == {(17, 9)}
    assert theirs.versions[0].opset is None


def test_what_only_pipelines_call_is_listed_as_private(repository: Path):
    factor, shown = publish_member(repository, "factor", 1, 3.0), publish_member(repository, "shown", 1, 2.0)
    publish_pipeline(repository, "chain", 1, 18.0, factor, factor, shown)
    assert list_repository(str(repository), NOW).private() == {"factor", "shown"}
    publish_pipeline(repository, "open", 1, 4.0, shown, shown, public=True)
    listing = list_repository(str(repository), NOW)
    assert listing.private() == {"factor"}, "one opens the other"
    pipelines = {e.name: [(v.members, v.opens_members) for v in e.versions] for e in listing.entries}
    assert pipelines["chain"] == [(("factor", "shown"), False)]
    assert pipelines["open"] == [(("shown",), True)]
    publish_pipeline(repository, "chain", 2, 4.0, shown, shown)
    listing = list_repository(str(repository), NOW)
    assert listing.private() == set(), "its newest version counts"
    assert listing.private({"chain": [1]}) == {"factor"}, "or the one that is served"
    assert listing.private({"chain": [7]}) == set(), "where that is listed"
    publish_pipeline(repository, "chain", 3, 9.0, factor, factor)
    (repository / "chain/3/.config.pbtxt").write_text("parameters {")
    seen = list_repository(str(repository), NOW)
    assert seen.private() == {"factor"}, "a config that nobody understands opens nothing"
    (repository / "chain/4").mkdir()
    (repository / "chain/4/.manifest.json").symlink_to(".manifest.json")
    again = list_repository(str(repository), NOW, seen)
    assert "chain" in again.message
    assert again.private() == {"factor"}, "what cannot be read stands as it was seen"
    assert Listing.model_validate_json(again.to_json()).private() == {"factor"}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("absent", Reason.REPOSITORY_NOT_FOUND),
        ("file", Reason.NOT_A_REPOSITORY),
        ("ftp://host/x", Reason.NOT_A_REPOSITORY),
    ],
)
def test_what_cannot_be_listed_says_why(tmp_path: Path, url: str, reason: Reason):
    (tmp_path / "file").write_text("")
    listing = list_repository(url if "://" in url else str(tmp_path / url), NOW)
    assert not listing.accessible
    assert listing.reason == reason
    assert listing.message


def test_the_last_entries_stand_while_the_repository_cannot_be_read(repository: Path):
    publish(repository, "m", 1, 1.0)
    seen = list_repository(str(repository), NOW)
    shutil.rmtree(repository)
    later = list_repository(str(repository), NOW + timedelta(hours=1))
    both = merged(seen, later)
    assert (both.entries, both.observed_at) == (seen.entries, NOW)
    assert (both.accessible, both.reason) == (False, Reason.REPOSITORY_NOT_FOUND)
    assert merged(None, later) == later
    assert merged(both, seen) == seen
    assert merged(seen.model_copy(update={"repository": "other"}), later) == later


def going_after(
    monkeypatch: pytest.MonkeyPatch, repository: Path, reads: type[RepositoryReader | LocalStore], moment: str
) -> None:
    """The repository goes as soon as that was asked of it."""
    look = getattr(reads, moment)

    def going(reader: object, *of: str) -> object:
        found = look(reader, *of)
        if repository.exists():
            repository.rename(repository.with_name("away"))
        return found

    monkeypatch.setattr(reads, moment, going)


@pytest.mark.parametrize(
    ("reads", "moment"), [(LocalStore, "has_file"), (LocalStore, "read"), (RepositoryReader, "survey")]
)
def test_a_repository_that_goes_while_it_is_read_loses_no_entry(
    repository: Path, monkeypatch: pytest.MonkeyPatch, reads: type[RepositoryReader | LocalStore], moment: str
):
    for name in ("a", "b"):
        publish(repository, name, 1, 1.0)
    seen = list_repository(str(repository), NOW)
    going_after(monkeypatch, repository, reads, moment)
    listing = list_repository(str(repository), NOW, seen)
    assert (listing.accessible, listing.reason) == (False, Reason.REPOSITORY_NOT_FOUND)
    assert merged(seen, listing).entries == seen.entries


@pytest.mark.parametrize("moment", ["entries", "newest"])
def test_a_repository_that_goes_while_its_latest_is_looked_for_changes_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch, moment: str
):
    for name in ("a", "b"):
        publish(repository, name, 1, 1.0)
    going_after(monkeypatch, repository, RepositoryReader, moment)
    with pytest.raises(NotFoundError):
        LatestSource(str(repository), 1.0)._latest()


def test_a_repository_that_is_empty_all_at_once_is_away(repository: Path):
    """As the mount point of a volume that is not mounted: what is no longer listed would be unloaded."""
    publish(repository, "m", 1, 1.0)
    seen = list_repository(str(repository), NOW)
    away = repository.rename(repository.with_name("away"))
    repository.mkdir()
    both = merged(seen, list_repository(str(repository), NOW + timedelta(hours=1), seen))
    assert (both.accessible, both.reason, both.entries) == (False, Reason.REPOSITORY_NOT_FOUND, seen.entries)
    assert "held m: is its volume mounted?" in both.message
    repository.rmdir()
    away.rename(repository)
    ModelRepository.open(repository).remove("m")
    listing = list_repository(str(repository), NOW + timedelta(hours=2), both)
    assert (listing.accessible, listing.entries) == (True, ())


def test_one_bad_entry_hides_no_other_and_stands_as_it_was_seen(repository: Path):
    publish(repository, "good", 1, 1.0)
    publish(repository, "bad", 1, 1.0)
    seen = list_repository(str(repository), NOW)
    publish(repository, "good", 2, 2.0)
    (repository / ".bad.gravswell.json").write_text("{")
    first = list_repository(str(repository), NOW)
    assert first.accessible
    assert [entry.name for entry in first.entries] == ["good"]
    assert "bad: " in first.message
    later = list_repository(str(repository), NOW, seen)
    assert [(entry.name, len(entry.versions)) for entry in later.entries] == [("bad", 1), ("good", 2)]
    shutil.rmtree(repository / "bad")
    (repository / ".bad.gravswell.json").unlink()
    gone = list_repository(str(repository), NOW, later)
    assert (gone.message, [entry.name for entry in gone.entries]) == ("", ["good"])


def test_a_folder_that_nobody_may_read_hides_no_entry(repository: Path, monkeypatch: pytest.MonkeyPatch):
    publish(repository, "m", 1, 1.0)
    seen = list_repository(str(repository), NOW)
    (repository / "lost+found").mkdir()
    children = LocalStore.children
    closed = {"lost+found"}

    def guarded(store: LocalStore, folder: str = "") -> Children:  # by a patch: root may read everything
        if folder.split("/", maxsplit=1)[0] in closed:
            raise AccessDeniedError(f"{folder} cannot be read")
        return children(store, folder)

    monkeypatch.setattr(LocalStore, "children", guarded)
    found = list_repository(str(repository), NOW)
    assert (found.accessible, [entry.name for entry in found.entries]) == (True, ["m"])
    closed.add("m")
    found = list_repository(str(repository), NOW, seen)
    assert (found.accessible, found.entries) == (True, seen.entries), "it was there: nobody unloads it"


def test_writes_are_rare(repository: Path):
    publish(repository, "m", 1, 1.0)
    seen = list_repository(str(repository), NOW)
    assert must_write(None, seen)
    assert not must_write(seen, seen.model_copy(update={"observed_at": NOW + HEARTBEAT / 2}))
    assert must_write(seen, seen.model_copy(update={"observed_at": NOW + HEARTBEAT}))
    assert must_write(seen, seen.model_copy(update={"observed_at": NOW - HEARTBEAT})), "a clock was set back"
    publish(repository, "m", 2, 2.0)
    assert must_write(seen, list_repository(str(repository), NOW))


def test_a_name_that_is_no_text_hides_no_other(repository: Path):
    digest = publish(repository, "m", 1, 1.0)
    shutil.copytree(repository / "m", repository / os.fsdecode(b"bad\xff"))
    listing = list_repository(str(repository), NOW)
    assert [entry.name for entry in listing.entries] == ["m"]
    assert listing.entries[0].versions[0].digest == digest
    assert listing.message == r"folder 'bad\udcff': its name is not UTF-8, so no document can carry it; rename it"
    assert Listing.model_validate_json(listing.to_json()) == listing


class MemoryConfigMap:
    """Holds what is merged into it; ``away`` keeps it from answering."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.away = asyncio.Event()

    async def read(self) -> Snapshot:
        if self.away.is_set():
            await asyncio.Event().wait()
        return Snapshot(dict(self.data), "1")

    async def merge(self, data: dict[str, str]) -> Snapshot:
        self.data |= data
        return await self.read()


@asynccontextmanager
async def listing(
    repository: Path, configmap: MemoryConfigMap, known_as: str | None = None
) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    """A running lister; ``await ask("/livez")`` is the status of its endpoint."""
    running = Lister(str(repository), configmap, 0.05, known_as=known_as)  # type: ignore[arg-type]
    async with ListerServer(running, "127.0.0.1:0") as server, aiohttp.ClientSession() as client:

        async def ask(path: str) -> int:
            async with client.get(f"http://{server.address}{path}") as answer:
                return answer.status

        task = asyncio.create_task(running.run())
        yield ask
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def status_becomes(ask: Callable[[str], Awaitable[int]], path: str, status: int) -> None:
    async with asyncio.timeout(60):
        while await ask(path) != status:  # noqa: ASYNC110  it is another program, to all intents
            await asyncio.sleep(0.02)


async def test_a_slow_repository_delays_readiness_and_never_costs_life(
    repository: Path, monkeypatch: pytest.MonkeyPatch
):
    answers = threading.Event()

    def slow(*given: object, **named: object) -> Listing:
        answers.wait(120)
        return list_repository(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(lister, "list_repository", slow)
    monkeypatch.setattr(lister, "STUCK_SECONDS", 1.0)
    monkeypatch.setattr(lister, "BEAT_SECONDS", 0.1)
    async with listing(repository, MemoryConfigMap()) as ask:
        for _ in range(30):
            assert await ask("/readyz") == 503
            await asyncio.sleep(0.1)
        await status_becomes(ask, "/livez", 200)  # now and then this loop itself may have stood for a second
        assert await ask("/readyz") == 503
        answers.set()
        await status_becomes(ask, "/readyz", 200)


async def test_the_listing_names_the_repository_as_its_user_does(repository: Path):
    """And so the listing of another claim at the same path is none of this one."""
    configmap, url = MemoryConfigMap(), "pvc://claim/zoo"
    configmap.data[LISTING_KEY] = Listing(
        repository="pvc://other/zoo", observed_at=NOW, accessible=True, entries=(ListedEntry(name="theirs"),)
    ).to_json()
    repository.rmdir()  # noqa: ASYNC240  it waits for nothing
    async with listing(repository, configmap, known_as=url) as ask:
        await status_becomes(ask, "/readyz", 200)
    found = Listing.model_validate_json(configmap.data[LISTING_KEY])
    assert (found.repository, found.accessible, found.entries) == (url, False, ())


async def test_a_repository_that_is_away_is_listed_as_such(repository: Path):
    configmap = MemoryConfigMap()
    repository.rmdir()  # noqa: ASYNC240  it waits for nothing
    async with listing(repository, configmap) as ask:
        await status_becomes(ask, "/readyz", 200)
        assert not Listing.model_validate_json(configmap.data[LISTING_KEY]).accessible


async def test_a_loop_that_does_not_turn_is_dead(repository: Path, monkeypatch: pytest.MonkeyPatch):
    configmap = MemoryConfigMap()
    async with listing(repository, configmap) as ask:
        await status_becomes(ask, "/readyz", 200)
        assert await ask("/livez") == 200
        configmap.away.set()
        monkeypatch.setattr(lister, "STUCK_SECONDS", 0.5)
        await status_becomes(ask, "/livez", 503)
        assert await ask("/readyz") == 200, "it has listed"


@settings(max_examples=30)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    limit=st.integers(500, 20_000),
    named=st.sets(st.integers(1, 60), max_size=5),
)
def test_a_listing_stays_below_its_limit_and_keeps_what_matters(counts: list[int], limit: int, named: set[int]):
    entries = tuple(
        ListedEntry(
            name=f"m{k}",
            versions=tuple(ListedVersion(number=n, digest="a" * 64, created=NOW) for n in range(count, 0, -1)),
            aliases={f"alias-{n}": n for n in named if n <= count},
        )
        for k, count in enumerate(counts)
    )
    listing = Listing(repository="r", observed_at=NOW, accessible=True, entries=entries)
    found = trimmed(listing, limit)
    for before, after in zip(entries, found.entries, strict=True):
        numbers = [version.number for version in after.versions]
        assert numbers[0] == before.versions[0].number
        assert set(before.aliases.values()) <= set(numbers)
        assert len(numbers) + after.omitted == len(before.versions)
        assert numbers == sorted(numbers, reverse=True)
    fits = len(found.to_json().encode()) <= limit
    smallest = all(
        len(after.versions) == len({after.versions[0].number, *after.aliases.values()}) for after in found.entries
    )
    assert fits or smallest


def test_once_prints_the_document(repository: Path):
    digest = publish(repository, "m", 1, 1.0)
    found = CliRunner().invoke(app, ["agent", "list", "--repository", str(repository), "--once", "-o", "json"])
    assert found.exit_code == 0
    assert json.loads(found.stdout)["entries"][0]["versions"][0]["digest"] == digest
    found = CliRunner().invoke(app, ["agent", "list", "--repository", str(repository), "--once"])
    assert digest[:12] in found.stdout


def test_once_names_what_alone_cannot_be_read(repository: Path):
    digest = publish(repository, "m", 1, 1.0)
    shutil.copytree(repository / "m", Path(os.fsdecode(os.fsencode(repository) + b"/\xff")))
    found = CliRunner().invoke(app, ["agent", "list", "--repository", str(repository), "--once"])
    assert found.exit_code == 0
    assert digest[:12] in found.stdout
    assert "could not be read: folder" in found.stdout
    assert "\\udcff" in found.stdout
