"""Which versions a pipeline's members are: what its author wrote, looked up in a repository when it is published."""

from collections.abc import Mapping, Sequence

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.aliases import LATEST
from gravswell.quiver.composition.opening import MemberVersion, member_version
from gravswell.quiver.entry import Entry
from gravswell.quiver.layout import parse_version
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.version import Version

Reference = Entry | Version | str
"""An entry, for its newest version; a version; or a name: ``denoise``, ``denoise/3``, ``denoise/champion``."""


def resolved(
    reader: RepositoryReader, names: Sequence[str], references: Mapping[str, Reference], *, pipeline: str | None
) -> dict[str, MemberVersion]:
    """The members by their names in the function; one without a reference is the entry of its own name.

    NotFoundError for an entry or version that is not in the repository, InvalidInputError for one that is in another,
    and for a ``pipeline`` (the entry that it is published in) that would call itself.
    """
    return {name: _resolved(reader, name, references.get(name, name), pipeline) for name in names}


def repository_of(references: Mapping[str, Reference]) -> str | None:
    """The URL of the repository of those references that are in one; None where all are mere names."""
    return next((r.repository_url for r in references.values() if not isinstance(r, str)), None)


def _resolved(reader: RepositoryReader, alias: str, reference: Reference, pipeline: str | None) -> MemberVersion:
    if not isinstance(reference, str) and reference.repository_url != reader.url:
        entry = reference.name if isinstance(reference, Entry) else reference.entry
        raise InvalidInputError(
            f"member {alias} is in {reference.repository_url}, and the pipeline in {reader.url}: copy it there first "
            f"(gravswell copy {reference.repository_url} {entry} {reader.url})"
        )
    if isinstance(reference, Version):
        return member_version(reader, alias, reference.entry, int(reference))
    name, slash, version = (reference.name, "", "") if isinstance(reference, Entry) else reference.partition("/")
    if name == pipeline:
        raise InvalidInputError(f"{pipeline} has itself as its member {alias}, which is a cycle: name another entry")
    if not reader.has(name):
        known = ", ".join(entry for entry in reader.entries() if entry != pipeline) or "none"
        raise NotFoundError(
            f"member {alias}: there is no entry {name!r} in {reader.store.location('')}; entries: {known}; "
            f'members={{"{alias}": …}} names another one'
        )
    if slash and version != LATEST:
        number = parse_version(version) or reader.aliases(name).get(version)
        if number is None:
            there = ", ".join(reader.aliases(name)) or "none"
            raise NotFoundError(f"member {alias}: {name} has no version or alias {version!r}; its aliases: {there}")
        return member_version(reader, alias, name, number)
    newest = reader.newest(name)
    if newest is None:
        raise NotFoundError(f"member {alias}: {name} has no version yet: export one first")
    return member_version(reader, alias, name, newest.number)
