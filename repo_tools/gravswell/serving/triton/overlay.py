"""The repository as a Triton without a GPU shall see it: a folder of links and rewritten configs, for one server.

Nothing is written into the repository. Versions are links, so nothing is copied; configs are files, because a config
that asks for a GPU fails the load where there is none. Uploads that are not published yet are left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tritonclient.grpc import model_config_pb2

from gravswell.errors import InvalidInputError, NotFoundError, UnsupportedError
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.config import ConfigText
from gravswell.quiver.layout import CONFIG, parse_version
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import open_store
from gravswell.serving.triton.modelnames import why_unservable

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
    url = urlsplit(open_store(repository).url)
    if url.scheme != "file":
        raise UnsupportedError(
            f"{repository} is in a bucket, and Triton needs a folder here: "
            f"`gravswell sync {repository} FOLDER` makes one of it"
        )
    return Path(unquote(url.path))


@dataclass(frozen=True)
class Overlay:
    """What an overlay holds."""

    models: list[str]
    """Names, sorted."""
    complete: bool
    """Every config says all that Triton could fill in, so Triton need not start a process for each model to ask."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Folders with versions that are left out, and why: Triton cannot serve a model of such a name."""


def build_overlay(repository: str | Path, target: Path, models: Iterable[str] | None = None) -> Overlay:
    """Fill the folder ``target`` for a server of ``repository`` and describe what is in it.

    ``models`` limits it to these and to what their ensembles are made of; None takes every entry that has a version.
    Raises :class:`NotFoundError` for a repository or model that is not there, or a repository with nothing to serve,
    :class:`InvalidInputError` where the only ones have names that cannot be served.
    """
    reader = RepositoryReader(repository)
    root = repository_folder(repository)
    known = reader.entries()
    wanted = list(known if models is None else models)
    built: dict[str, Any] = {}
    refused: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name in built or name in refused:
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
            built[name] = _link(reader, name, numbers, root / name, target / name)
            wanted += [step.model_name for step in built[name].ensemble_scheduling.step]
        elif models is not None:
            raise NotFoundError(f"model '{name}' in {root} has no version; export one first")
    if not built and refused:
        raise unservable_names(root, refused)
    if not built:
        raise NotFoundError(f"{root} has no model with a version, so there is nothing to serve; export one first")
    return Overlay(sorted(built), all(map(_is_complete, built.values())), refused)


def unservable_names(root: Path, refused: Mapping[str, str]) -> InvalidInputError:
    """What to tell of an overlay's ``refused``; names are shown in ASCII, for they may be no text."""
    told = "; ".join(f"folder {name!a} in {root} cannot be served: {why}" for name, why in sorted(refused.items()))
    return InvalidInputError(f"{told}; rename it, or name the models to serve (--entry)")


def _link(reader: RepositoryReader, name: str, numbers: set[int], source: Path, target: Path) -> Any:
    target.mkdir(parents=True)
    for child in source.iterdir():
        number = parse_version(child.name)
        published = number is None or number in numbers
        if published and child.name != CONFIG and not child.name.startswith("."):
            (target / child.name).symlink_to(child, target_is_directory=child.is_dir())
    # A crash between the first version and its config leaves the version's own to heal from.
    text = reader.config(name) or reader.version_config(name, max(numbers)) or ""
    config = ConfigText(text, where=str(source / CONFIG))
    run_on_cpu(config.message)
    (target / CONFIG).write_text(config.render())
    return config.message


def _is_complete(config: Any) -> bool:
    # The rule of the ONNX Runtime backends. Ensembles are never completed; other backends have rules of their own.
    graph = config.platform == "onnxruntime_onnx" or config.backend == "onnxruntime"
    return config.platform == "ensemble" or (graph and bool(config.input) and bool(config.output))
