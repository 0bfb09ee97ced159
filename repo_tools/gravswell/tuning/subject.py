"""What is tuned: an entry, or an ensemble with all that it is made of, as their working configurations stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver import Entry, ModelRepository
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.composition.config import pinned_members
from gravswell.quiver.reader import RepositoryReader
from gravswell.tuning.settings import require_tunable


@dataclass(frozen=True, slots=True)
class Part:
    """A model of those that are served together, in the versions that are asked for."""

    entry: Entry
    config: Any
    versions: tuple[int, ...]

    @property
    def name(self) -> str:
        """The entry's."""
        return self.entry.name

    def current(self) -> Any:
        """The working configuration as it is by now. InvalidInputError where it cannot be tuned any more."""
        config = working_config(self.entry)
        require_tunable(config)
        return config


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured."""

    asked: Part
    """What clients ask: the entry, in one version."""
    tuned: tuple[Part, ...]
    """Whose settings are varied: the entry itself, or the ensemble's members, in the order of its steps."""
    ensembles: tuple[Part, ...]
    """What has no instances: ensembles, each after those within it, and so what is asked at the end."""


def subject(entry: Entry, version: int | None) -> Subject:
    """The entry, at a version (the newest by default), with all that it needs to be served.

    NotFoundError for a version, or a member, that is not there; InvalidInputError for a model whose settings are not
    one number each.
    """
    config = working_config(entry)
    if not is_ensemble(config):
        require_tunable(config)
        one = Part(entry, config, (int(entry.version(version)),))
        return Subject(one, (one,), ())
    whole = Part(entry, config, (_version_of(entry, config, version),))
    wanted, ensembles = _members(whole)
    for part in wanted:
        require_tunable(part.config)
    return Subject(whole, tuple(wanted), tuple(ensembles))


def working_config(entry: Entry) -> Any:
    """A copy of the entry's ``config.pbtxt``, with its name, which may be left out in the file."""
    config = entry.config.message
    config.name = entry.name
    return config


def _version_of(entry: Entry, config: Any, version: int | None) -> int:
    if version is None and is_ensemble(config):
        # It has no model file, so one that was written by hand may have no version that a reader knows.
        newest = RepositoryReader(entry.repository_url).newest(entry.name)
        return 1 if newest is None else newest.number
    return int(entry.version(version))


def _members(whole: Part) -> tuple[list[Part], list[Part]]:
    """Models below ``whole``, and ensembles to it itself, each once, with every version that a step names."""
    repository = ModelRepository.open(whole.entry.repository_url)
    found: dict[str, Part] = {}
    ensembles: dict[str, Part] = {}

    def add(ensemble: Part, above: Sequence[str]) -> None:
        for member in pinned_members(ensemble.config):
            name = member.model
            if name in above:
                raise InvalidInputError(f"{name} is made of itself: {' → '.join([*above, name])}")
            if name not in repository.models:
                raise NotFoundError(
                    f"{ensemble.name} has a step {name!r}, and {repository.location} has no such entry: publish it"
                )
            entry = repository.models[name]
            config = working_config(entry)
            number = _version_of(entry, config, member.version if member.version > 0 else None)
            known = found
            if is_ensemble(config):
                known = ensembles
                if name not in known:
                    add(Part(entry, config, (number,)), [*above, name])
            before = known[name].versions if name in known else ()
            known[name] = Part(entry, config, tuple(sorted({*before, number})))

    add(whole, [whole.name])
    return list(found.values()), [*ensembles.values(), whole]
