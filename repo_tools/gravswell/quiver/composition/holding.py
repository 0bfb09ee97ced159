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

from gravswell.errors import ConflictError, GravswellError, NotFoundError, VerificationError
from gravswell.quiver.manifest import MemberRecord
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
        for number, members in _published(reader, pipeline).items():
            for member in members if gone is not None and number not in gone else ():
                if member.model == entry:
                    found.setdefault(member.version, []).append(f"{pipeline}/{number}")
        for expected in hold.expected.values():
            if now - expected.noted < UNDER_WAY:
                for number in expected.versions:
                    found.setdefault(number, []).append(f"{pipeline}, a version of which is on its way")
    return {number: list(dict.fromkeys(pipelines)) for number, pipelines in found.items()}


def _published(reader: RepositoryReader, pipeline: str) -> dict[int, tuple[MemberRecord, ...]]:
    try:
        removing = set(reader.state(pipeline)[0].removing)
        numbers = [number for number in reversed(reader.numbers(pipeline)) if number not in removing]
    except NotFoundError:
        return {}  # removed, or never published

    def members(number: int) -> tuple[MemberRecord, ...]:
        try:
            return reader.manifest(pipeline, number)[0].members
        except (NotFoundError, VerificationError):
            return ()  # an upload under way, or one that verify tells of: neither can be served

    return dict(zip(numbers, reader.store.in_parallel(members, numbers), strict=True))
