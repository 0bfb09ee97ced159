"""How a pipeline keeps its members: what one needs is not removed before it, on a store that can lock nothing.

Before a pipeline's version is published, that is noted in the state of each entry that has a member of it; then it is
looked whether the members are there and stay. A removal notes what goes in the same state, so of the two at least one
sees the other. What was noted a while ago holds only what the pipeline's manifests still say: a pipeline that was never
published, or was removed, keeps nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from gravswell.errors import ConflictError, NotFoundError, VerificationError
from gravswell.quiver.manifest import MemberRecord
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import EntryState, Hold
from gravswell.quiver.stores.memory import change_state

UNDER_WAY = timedelta(hours=1)
"""How long a note holds by itself: the longest that a pipeline's version is on its way, once its members are noted."""


def note_members(reader: RepositoryReader, pipeline: str, members: Iterable[MemberRecord]) -> None:
    """Note in the entries of ``members`` that a version of ``pipeline`` is about to have them."""
    wanted: dict[str, set[int]] = {}
    for member in members:
        wanted.setdefault(member.model, set()).add(member.version)
    now = datetime.now(UTC)
    for model, numbers in sorted(wanted.items()):

        def change(state: EntryState, numbers: Collection[int] = numbers) -> EntryState:
            hold = Hold(versions=tuple(sorted(numbers)), noted=now)
            before = state.pipelines.get(pipeline)
            if before is not None and before.noted == now:
                return state
            if before is not None and now - before.noted < UNDER_WAY:  # another version of it may be on its way
                hold = Hold(versions=tuple(sorted({*before.versions, *numbers})), noted=now)
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
        named = set()
        for number, members in _published(reader, pipeline).items():
            gone = going is not None and pipeline in going and number in (going[pipeline] or (number,))
            for member in members:
                if member.model == entry and not gone:
                    found.setdefault(member.version, []).append(f"{pipeline}/{number}")
                named.add(member.version)
        if now - hold.noted < UNDER_WAY and not (going is not None and pipeline in going):
            for number in set(hold.versions) - named:
                found.setdefault(number, []).append(f"{pipeline}, which may be on its way")
    return {number: list(dict.fromkeys(pipelines)) for number, pipelines in found.items()}


def _published(reader: RepositoryReader, pipeline: str) -> dict[int, tuple[MemberRecord, ...]]:
    try:
        removing = set(reader.state(pipeline)[0].removing)
        numbers = [number for number in reader.numbers(pipeline) if number not in removing]
    except NotFoundError:
        return {}  # removed, or never published

    def members(number: int) -> tuple[MemberRecord, ...]:
        try:
            return reader.manifest(pipeline, number)[0].members
        except (NotFoundError, VerificationError):
            return ()  # an upload under way, or one that verify tells of: neither can be served

    return dict(zip(numbers, reader.store.in_parallel(members, numbers), strict=True))
