"""Pipelines in a folder that a Triton serves: their members under names of their own, and configs that say so.

A pipeline is served in one version, because Triton has one config for a model, and each version names members of its
own. It has what the entry's working config says, but for what the version itself decides: what it is made of.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from gravswell.errors import NotFoundError, VerificationError
from gravswell.quiver.composition.config import ACCESS, access_of, is_pipeline, pinned_members, take_parts
from gravswell.quiver.config import ModelConfig, format_config, parse_config
from gravswell.quiver.layout import CONFIG, version_folder
from gravswell.quiver.manifest import REQUIREMENTS_FILE
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.members import as_member, member_keys, member_name, renamed

ENVIRONMENT = "gravswell.environment"
"""Parameter that tells the pipeline's ``model.py`` the folder in which its packages are installed."""

Environment = Callable[[str, str], Path]
"""From requirements, and for whom they are, to a folder with the packages."""


def is_ours(config: Any) -> bool:
    """Whether ``config`` is of a pipeline with pinned members; an ensemble that others wrote is Triton's own matter."""
    return is_pipeline(config) and ACCESS in config.parameters


def open_members(config: Any) -> list[str]:
    """The entries that are served to clients because this one is: the steps of an ensemble, unless they are private."""
    if is_ours(config) and access_of(config) == "private":
        return []
    return [member.model for member in pinned_members(config)]


def settled(reader: RepositoryReader, root: Path, pipeline: str, config: Any, numbers: set[int]) -> tuple[int, Any]:
    """The version of ``pipeline`` that is served, and ``config``, its working copy, with what that version is made of.

    It is the newest that the version policy asks for. NotFoundError where there is none, or for one that does not say
    what it is made of, and what cannot be read raises as ever.
    """
    if not numbers:
        raise NotFoundError(f"pipeline '{pipeline}' in {root} has no version, so it cannot be loaded; export one first")
    number = max(numbers.intersection(config.version_policy.specific.versions) or numbers)
    folder = root / version_folder(pipeline, number)
    published = reader.version_config(pipeline, number)
    if published is None:
        raise NotFoundError(
            f"pipeline '{pipeline}/{number}' has no config of its own that names its members in {folder}: restore it, "
            f"or export the pipeline again"
        )
    made = ModelConfig()
    made.CopyFrom(config)
    take_parts(made, parse_config(published, where=str(folder)))
    return number, made


def serve_also(config: Any, numbers: set[int], pinned: set[int]) -> None:
    """Have the version policy of an entry with the versions ``numbers`` serve those that are ``pinned``, too."""
    policy = config.version_policy
    if policy.HasField("all"):
        return
    if policy.HasField("specific"):
        chosen = set(policy.specific.versions)
    else:
        chosen = set(sorted(numbers)[-(policy.latest.num_versions or 1) :])
    if not pinned <= chosen:
        policy.specific.versions[:] = sorted(chosen | pinned)


class MemberFolders:
    """Members of pipelines, each version once, as models in the folder ``target``.

    ``key`` is the server's secret in their names, ``environment`` installs what a pipeline's functions import, and
    ``adapt`` changes the config of whatever is served here, in place.
    """

    def __init__(
        self,
        reader: RepositoryReader,
        root: Path,
        target: Path,
        *,
        key: str,
        adapt: Callable[[Any], None],
        environment: Environment | None = None,
    ) -> None:
        self.told: dict[str, str] = {}
        """Members by the names that they have here: ``denoise/3``."""
        self.configs: dict[str, Any] = {}
        """And the configs with which they are served."""
        self.users: dict[str, set[str]] = {}
        """Pipelines, and the members that each has here."""
        self.opened: dict[str, set[int]] = {}
        """Entries that a pipeline opens to clients, and the versions of them that it calls."""
        self._reader, self._root, self._target = reader, root, target
        self._key, self._adapt, self._environment = key, adapt, environment

    def place(self, pipeline: str, number: int, config: Any, *, apart: bool = False) -> Any:
        """Put the members of a version of ``pipeline`` there; return ``config``, :func:`settled`, as it is served.

        Members that it opens to clients are called as they are, unless all are to be kept ``apart``. NotFoundError for
        a member that is not in the repository, VerificationError for one that is not what it was, UnavailableError for
        packages that cannot be had.
        """
        folder = self._root / version_folder(pipeline, number)
        digests = self._checked(pipeline, number, member_keys(config))
        names = {}
        if access_of(config) == "private" or apart:
            names = {member: self._placed(*member, digest) for member, digest in digests.items()}
        else:
            for model, version in digests:
                self.opened.setdefault(model, set()).add(version)
        self.users[pipeline] = set(names.values())
        made = renamed(config, names)
        requirements = folder / REQUIREMENTS_FILE
        if self._environment is not None and requirements.is_file():
            packages = self._environment(requirements.read_text(), f"pipeline '{pipeline}/{number}'")
            made.parameters[ENVIRONMENT].string_value = str(packages)
        return made

    def keep(self, pipeline: str, names: Collection[str] = ()) -> set[str]:
        """Have ``pipeline`` need the members with these ``names`` and no more; those that nothing needs now."""
        left = self.users.pop(pipeline, set())
        if names:
            self.users[pipeline] = set(names)
        return left.difference(*self.users.values())

    def _checked(
        self, pipeline: str, number: int, members: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], str | None]:
        """The digests of the members, which are there, and are those with which the pipeline was proved."""
        proved: dict[tuple[str, int], str] = {}
        if self._reader.version(pipeline, number).digest is not None:
            manifest, _ = self._reader.manifest(pipeline, number)
            proved = {(member.model, member.version): member.digest for member in manifest.members}
        found = {}
        for model, version in members:
            needs = f"pipeline '{pipeline}/{number}' needs its member {model}/{version}"
            try:
                found[model, version] = self._reader.version(model, version).digest
            except NotFoundError:
                raise NotFoundError(
                    f"{needs}, which is not in {self._root}: restore it, or export the pipeline again"
                ) from None
            if found[model, version] != proved.get((model, version), found[model, version]):
                raise VerificationError(
                    f"{needs} as it was when the pipeline was proved, and its manifest is another one now: restore it, "
                    f"or export the pipeline again"
                )
        return found

    def _placed(self, model: str, version: int, digest: str | None) -> str:
        name = member_name(model, digest or f"version {version}", self._key)
        if name not in self.told:
            folder = self._target / name
            folder.mkdir(parents=True)
            (folder / str(version)).symlink_to(self._root / version_folder(model, version), target_is_directory=True)
            made = as_member(self._config(model, version), name, version)
            self._adapt(made)
            (folder / CONFIG).write_text(format_config(made))
            self.told[name], self.configs[name] = f"{model}/{version}", made
        return name

    def _config(self, model: str, version: int) -> Any:
        """The working copy for the newest version, as for every entry here; an older one has what it came with."""
        text = self._reader.config(model) if version == max(self._reader.numbers(model)) else None
        if text is None:
            text = self._reader.version_config(model, version) or ""
        return parse_config(text, where=str(self._root / version_folder(model, version)))
