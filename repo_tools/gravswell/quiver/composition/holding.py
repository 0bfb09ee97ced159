"""How a pipeline keeps its members: what one needs is not removed before it, on a store that can lock nothing.

While a pipeline's version is on its way, that is noted in the state of each entry that has a member of it; and after
the note it is looked whether the members are there and stay. A removal notes what goes in the same state, so of the two
at least one sees the other. Once the version is there the note says no more than that the pipeline is to be asked: its
manifests say what it has. So a pipeline that was removed, or never published, keeps nothing.
"""

import logging
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from gravswell.errors import ConflictError, GravswellError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.composition.config import Pinned, pinned_members
from gravswell.quiver.config import parse_config
from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import VERSION_CONFIG, MemberRecord
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import EntryState, Expected, Hold
from gravswell.quiver.stores.memory import change_state

UNDER_WAY = timedelta(hours=1)
"""How long a note holds whose writer died: the longest that a version is on its way once its members are noted."""

_log = logging.getLogger(__name__)


@contextmanager
def noted(reader: RepositoryReader, pipeline: str, members: Collection[MemberRecord]) -> Iterator[None]:
    """While this is open a version of ``pipeline`` with these ``members`` may be on its way, and they stay."""
    wanted: dict[str, set[int]] = {}
    for member in members:
        wanted.setdefault(member.model, set()).add(member.version)
    writer = secrets.token_hex(8)
    for model, numbers in sorted(wanted.items()):
        _change(reader, model, pipeline, writer, Expected(versions=tuple(sorted(numbers)), noted=datetime.now(UTC)))
    try:
        yield
    finally:
        for model in sorted(wanted):
            try:
                _change(reader, model, pipeline, writer, None)
            except GravswellError as error:  # whatever became of the version stands
                _log.warning("members of %s in %s stay for an hour, whoever has them: %s", pipeline, model, error)


def _change(reader: RepositoryReader, model: str, pipeline: str, writer: str, expected: Expected | None) -> None:
    now = datetime.now(UTC)

    def change(state: EntryState) -> EntryState:
        before = state.pipelines.get(pipeline, Hold()).expected
        others = {w: e for w, e in before.items() if w != writer and now - e.noted < UNDER_WAY}
        hold = Hold(expected={**others, writer: expected} if expected is not None else others)
        return state.model_copy(update={"pipelines": {**state.pipelines, pipeline: hold}})

    change_state(reader.store, model, change)


def check_members(reader: RepositoryReader, members: Iterable[MemberRecord]) -> None:
    """ConflictError for a member that is gone, became another version, or is being removed."""
    for member in members:
        state, _ = reader.state(member.model)
        what = f"{member.model}/{member.version}"
        if member.version in state.removing:
            raise ConflictError(f"{what}, a member of the pipeline, is being removed, and nothing was published")
        try:
            digest = reader.version(member.model, member.version).digest
        except NotFoundError:
            raise ConflictError(f"{what}, a member of the pipeline, was removed, and nothing was published") from None
        if digest != member.digest:
            raise ConflictError(f"{what}, a member of the pipeline, was replaced, and nothing was published: try again")


def pipelines_of(
    reader: RepositoryReader,
    entry: str,
    state: EntryState,
    *,
    going: Mapping[str, Collection[int] | None] | None = None,
) -> dict[int, list[str]]:
    """The versions of ``entry`` that pipelines have as members, each with these pipelines (``clean/3``).

    :param going: versions of pipelines that are about to be removed with them, or None for all of one.
    """
    found: dict[int, list[str]] = {}
    now = datetime.now(UTC)
    for pipeline, hold in sorted(state.pipelines.items()):
        gone = () if going is None or pipeline not in going else going[pipeline]
        for told, held in () if gone is None else _published(reader, pipeline, entry, gone):
            for version in held:
                found.setdefault(version, []).append(told)
        for expected in hold.expected.values():
            if now - expected.noted < UNDER_WAY:
                for number in expected.versions:
                    found.setdefault(number, []).append(f"{pipeline}, a version of which is on its way")
    return {number: list(dict.fromkeys(pipelines)) for number, pipelines in found.items()}


def _published(
    reader: RepositoryReader, pipeline: str, entry: str, gone: Collection[int]
) -> Iterable[tuple[str, list[int]]]:
    """The versions of ``pipeline`` but those in ``gone``, with the versions of ``entry`` that each has as members."""
    try:
        ignored = {*reader.state(pipeline)[0].removing, *gone}
        numbers = [number for number in reversed(reader.numbers(pipeline)) if number not in ignored]
    except NotFoundError:
        return ()  # removed, or never published

    def held(number: int) -> tuple[str, list[int]]:
        members: Iterable[MemberRecord | Pinned]
        told = f"{pipeline}/{number}"
        try:
            members = reader.manifest(pipeline, number)[0].members
        except NotFoundError:
            members = ()  # an upload under way: its members are noted
        except VerificationError:  # the manifest may be restored, or is one for newer releases
            try:
                members = _configured(reader, pipeline, number)
            except (NotFoundError, InvalidInputError, UnicodeDecodeError):
                told += " (perhaps: its manifest and configuration cannot be read)"
                return told, reader.numbers(entry)
        return told, [member.version for member in members if member.model == entry]

    return reader.store.in_parallel(held, numbers)


def _configured(reader: RepositoryReader, pipeline: str, number: int) -> list[Pinned]:
    """The members by the version's own configuration."""
    key = f"{version_folder(pipeline, number)}/{VERSION_CONFIG}"
    text = reader.store.read(key).data.decode()
    return pinned_members(parse_config(text, where=reader.store.location(key)))
