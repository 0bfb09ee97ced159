"""The repository as a Triton without a GPU shall see it: a folder of links and rewritten configs, for one server.

Nothing is written into the repository. Versions are links, so nothing is copied; configs are files, because a config
that asks for a GPU fails the load where there is none. Uploads that are not published yet are left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from gravswell.errors import GravswellError, InvalidInputError, NotFoundError, UnavailableError, UnsupportedError
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.composition.config import pinned_members
from gravswell.quiver.config import ConfigText
from gravswell.quiver.layout import CONFIG, parse_version
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import in_bucket, open_store
from gravswell.serving.triton.modelnames import why_unservable
from gravswell.serving.triton.pipelines import (
    Environment,
    MemberFolders,
    is_ours,
    open_members,
    serve_also,
    settled,
)

_Group = model_config_pb2.ModelInstanceGroup


def run_on_cpu(config: Any) -> None:
    """Change a ``ModelConfig``, in place, to run on the CPU what would run on a GPU.

    An instance group that names no count gets one instance (Triton would make two processes of it on a CPU). Groups
    that ask for the CPU already are left alone, and so are ensembles, which have no instances of their own.
    """
    if is_ensemble(config):
        return
    if not config.instance_group:
        config.instance_group.add()
    for group in config.instance_group:
        if group.kind in (_Group.KIND_AUTO, _Group.KIND_GPU):
            group.kind = _Group.KIND_CPU
            group.count = group.count or 1
            del group.gpus[:]


def repository_folder(repository: str | Path) -> Path:
    """The absolute folder of a repository given as a path or ``file://`` URL; NotFoundError if it is not there.

    UnsupportedError for one in a bucket: Triton is started on a folder.
    """
    folder = None if in_bucket(repository) else open_store(repository).path  # without asking for credentials first
    if folder is None:
        raise UnsupportedError(
            f"{repository} is in a bucket, and Triton needs a folder here: "
            f"`gravswell sync {repository} FOLDER` makes one of it"
        )
    return folder


@dataclass(frozen=True)
class Overlay:
    """What an overlay holds."""

    models: list[str]
    """Names that clients may call, sorted."""
    complete: bool
    """Every config says all that Triton could fill in, so Triton need not start a process for each model to ask."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Folders with versions that are left out, and why: Triton cannot serve a model of such a name."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Pipelines that are left out, and why: a member or a package that they need cannot be had."""
    members: Mapping[str, str] = field(default_factory=dict)
    """Members of pipelines, by the names that they have on this server: ``denoise/3``."""
    users: Mapping[str, set[str]] = field(default_factory=dict)
    """Pipelines, and the names of their members."""


def build_overlay(
    repository: str | Path,
    target: Path,
    models: Iterable[str] | None = None,
    *,
    key: str = "",
    environment: Environment | None = None,
) -> Overlay:
    """Fill the folder ``target`` for a server of ``repository`` and describe what is in it.

    ``models`` limits it to these, to what their ensembles are made of and to the members that their pipelines open to
    clients; None takes every entry that has a version and is not a private member of another. ``key`` and
    ``environment`` are those of :class:`~gravswell.serving.triton.pipelines.MemberFolders`. Raises
    :class:`NotFoundError` for a repository or model that is not there, or a repository with nothing to serve,
    :class:`InvalidInputError` where the only ones have names that cannot be served, :class:`UnavailableError` where the
    only ones are pipelines that lack something.
    """
    reader = RepositoryReader(repository)
    root = repository_folder(repository)
    found, refused, broken = _gathered(reader, root, models)
    if models is None:
        hidden = _hidden(found)
        found = {name: entry for name, entry in found.items() if name not in hidden}
    shelf = MemberFolders(reader, root, target, key=key, adapt=run_on_cpu, environment=environment)
    broken |= _place_members(shelf, found)
    built = {}
    for name, entry in found.items():
        if name not in broken:
            serve_also(entry.config.message, entry.numbers, shelf.opened.get(name, set()))
            built[name] = _link(entry, root / name, target / name)
    if not built and refused:
        raise unservable_names(root, refused)
    if not built and broken:
        raise broken_pipelines(broken)
    if not built:
        raise NotFoundError(f"{root} has no model with a version, so there is nothing to serve; export one first")
    complete = all(map(_is_complete, [*built.values(), *shelf.configs.values()]))
    return Overlay(sorted(built), complete, refused, broken, shelf.told, shelf.users)


def unservable_names(root: Path, refused: Mapping[str, str]) -> InvalidInputError:
    """What to tell of an overlay's ``refused``; names are shown in ASCII, for they may be no text."""
    told = "; ".join(f"folder {name!a} in {root} cannot be served: {why}" for name, why in sorted(refused.items()))
    return InvalidInputError(f"{told}; rename it, or name the models to serve (--entry)")


def broken_pipelines(broken: Mapping[str, str]) -> UnavailableError:
    """What to tell of an overlay's ``broken``."""
    return UnavailableError("; ".join(why for _, why in sorted(broken.items())))


@dataclass(frozen=True)
class _Entry:
    """An entry that is to be served: its published versions, a pipeline's one version, and its working config."""

    numbers: set[int]
    config: ConfigText
    pipeline: int | None = None
    """The version in which a pipeline of ours is served: ``config`` says what it is made of."""


def _gathered(
    reader: RepositoryReader, root: Path, models: Iterable[str] | None
) -> tuple[dict[str, _Entry], dict[str, str], dict[str, str]]:
    """The entries that are asked for, with those that they bring to clients; entries whose names cannot be served, and
    why; and why those pipelines are broken whose served version does not say what it is made of.
    """
    known = reader.entries()
    wanted = list(known if models is None else models)
    found: dict[str, _Entry] = {}
    refused: dict[str, str] = {}
    broken: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name in found or name in refused:
            continue
        unservable = why_unservable(name)
        if unservable is not None and models is not None:
            refused[name] = unservable
            continue
        if name not in known:
            raise NotFoundError(f"there is no model '{name}' in {root}; it has {', '.join(known) or 'none'}")
        numbers = {version.number for version in reader.versions(name)}
        if numbers and unservable is not None:
            refused[name] = unservable
        elif numbers:
            found[name] = entry = _Entry(numbers, _config(reader, name, numbers, root))
            if is_ours(entry.config.message):
                try:
                    found[name] = entry = _settled(reader, root, name, entry)
                except GravswellError as error:
                    broken[name] = str(error)  # and what its working config keeps private stays so
                    continue
            opened = open_members(entry.config.message)
            # What a pipeline of ours lacks is told of that pipeline, when its members are placed.
            wanted += opened if entry.pipeline is None else [m for m in opened if m in known and reader.newest(m)]
        elif models is not None:
            raise NotFoundError(f"model '{name}' in {root} has no version; export one first")
    return found, refused, broken


def _settled(reader: RepositoryReader, root: Path, name: str, entry: _Entry) -> _Entry:
    number, made = settled(reader, root, name, entry.config.message, entry.numbers)
    entry.config.message.CopyFrom(made)
    return _Entry({number}, entry.config, number)


def _config(reader: RepositoryReader, name: str, numbers: set[int], root: Path) -> ConfigText:
    # A crash between the first version and its config leaves the version's own to heal from.
    text = reader.config(name) or reader.version_config(name, max(numbers)) or ""
    return ConfigText(text, where=str(root / name / CONFIG))


def _hidden(found: Mapping[str, _Entry]) -> set[str]:
    """Entries that clients call as parts of pipelines only: a member of one, opened by none."""
    configs = [entry.config.message for entry in found.values()]
    opened = {name for config in configs for name in open_members(config)}
    members = {member.model for config in configs if is_ours(config) for member in pinned_members(config)}
    return members - opened


def _place_members(shelf: MemberFolders, found: Mapping[str, _Entry]) -> dict[str, str]:
    """Place the members of every pipeline and have it call them there; tell why where that cannot be."""
    broken = {}
    for name, entry in found.items():
        if entry.pipeline is not None:
            message = entry.config.message
            try:
                message.CopyFrom(shelf.place(name, entry.pipeline, message))
            except GravswellError as error:
                broken[name] = str(error)
    return broken


def _link(entry: _Entry, source: Path, target: Path) -> Any:
    message = entry.config.message
    target.mkdir(parents=True)
    for child in source.iterdir():
        number = parse_version(child.name)
        published = number is None or number in entry.numbers
        if published and child.name != CONFIG and not child.name.startswith("."):
            (target / child.name).symlink_to(child, target_is_directory=child.is_dir())
    run_on_cpu(message)
    (target / CONFIG).write_text(entry.config.render())
    return message


def _is_complete(config: Any) -> bool:
    # The rule of the ONNX Runtime backends. Ensembles and our business logic are never completed; other backends have
    # rules of their own.
    told = config.platform == "onnxruntime_onnx" or config.backend == "onnxruntime" or is_ours(config)
    return config.platform == "ensemble" or (told and bool(config.input) and bool(config.output))
