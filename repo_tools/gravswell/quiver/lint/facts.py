"""What is in a repository, seen with Triton's eyes: gathered once, asked by every check, changed by none."""

import re
import tempfile
import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravswell.errors import InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.checks.backends import PLATFORMS, is_ensemble
from gravswell.quiver.config import ModelConfig, parse_config, unknown_fields
from gravswell.quiver.fetching import Progress, copy_version
from gravswell.quiver.layout import CONFIG, config_key, is_readable_name
from gravswell.quiver.manifest import Manifest
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import Children, FileInfo, Store, View
from gravswell.targets import Target, target_of

if TYPE_CHECKING:
    from gravswell.quiver.exporters.inspection import GraphFacts

MODEL_FILES = {"onnxruntime": "model.onnx", "python": "model.py", "pytorch": "model.pt", "tensorrt": "model.plan"}
"""The file that a backend loads where the config names none."""

FOLDERS = frozenset({"warmup", "initial_state", "configs"})
"""Folders beside the versions that Triton knows."""

_STOLL = re.compile(r"\s*[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """A version that Triton would load."""

    number: int
    folder: str
    """The name that Triton reads the number from."""
    files: tuple[FileInfo, ...] = ()
    """What is in the folder of that very number."""
    graph: "GraphFacts | None" = None
    """None where there is no ONNX file to look at."""

    @property
    def misread(self) -> bool:
        """Whether Triton will look for it in a folder that is not there."""
        return self.number < 0 or self.folder != str(self.number)


@dataclass(frozen=True)
class ModelFacts:
    """A folder of the root. ``config`` is what Triton would read; empty where it cannot."""

    name: str
    children: Children
    text: str | None = None
    config: Any = field(default_factory=ModelConfig)
    unreadable: str | None = None
    unknown: tuple[str, ...] = ()
    loaded: tuple[VersionFacts, ...] = ()
    """The versions that the policy chooses, ascending."""
    has_model_file: bool = False
    """Whether any version, chosen or not, holds what may be a model's file."""
    side_files: frozenset[str] = frozenset()
    """Every file of the model's folder outside its versions, by path within it."""
    published: str | None = None
    """The config of the newest version, where gravswell published one."""

    @property
    def place(self) -> str:
        """Where its config is, or would be."""
        return config_key(self.name)

    @cached_property
    def numbers(self) -> dict[int, str]:
        """The version numbers that Triton reads from the folders' names, and these."""
        found: dict[int, str] = {}
        for folder in self.children.folders:
            number = read_number(folder)
            if number is not None and (number not in found or folder == str(number)):
                found[number] = folder
        return found

    @property
    def backend(self) -> str:
        """The backend that would load it; empty where nothing says."""
        stated = self.config.backend or PLATFORMS.get(self.config.platform, "")
        if stated or self.config.platform:
            return str(stated)
        files = {f.path for version in self.loaded for f in version.files}
        return next((backend for backend, file in MODEL_FILES.items() if file in files), "")

    @property
    def ensemble(self) -> bool:
        """Whether it is made of other models."""
        return is_ensemble(self.config)

    @property
    def file(self) -> str | None:
        """The model file that each version must hold; None where we do not know."""
        usual = "model.pt2" if self.config.platform == "torch_aoti" else MODEL_FILES.get(self.backend)
        return self.config.default_model_filename or usual


def read_number(folder: str) -> int | None:
    """The version that Triton takes a folder for: C's ``stoll``, and no leading zeros. None for no version."""
    match = _STOLL.match(folder)
    if match is None or (len(folder) > 1 and folder.startswith("0")) or len(match[0]) > 18:
        return None
    return int(match[0])


def chosen(policy: Any, existing: set[int]) -> set[int]:
    """The versions that Triton loads under a ``version_policy``."""
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return existing
    if kind == "specific":
        return existing & set(policy.specific.versions)
    count = policy.latest.num_versions if kind == "latest" else 1
    return set(sorted(existing, reverse=True)[:count])


class World:
    """The models of a repository, each looked at when it is first asked for."""

    def __init__(
        self,
        store: Store,
        progress: Progress | None = None,
        target: Target | None = None,
        *,
        everything: bool = True,
    ) -> None:
        """With ``everything`` a bucket is listed once for all models, and else for each of the few that are asked for.

        It is never asked a thousand times for a thousand entries, nor listed whole for one.
        """
        self.store = store
        self._view = store.view() if everything else None
        self._progress = progress
        self._target = target
        self._models: dict[str, ModelFacts] = {}
        self._fetching = threading.Lock()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every folder of the root."""
        return (self._view or self.store).children().folders

    def model(self, name: str) -> ModelFacts | None:
        """One model with the graphs of its versions; None if there is no such folder. From any thread."""
        if (self._view is not None or not is_readable_name(name)) and name not in self.names:
            return None  # an odd name may be no path at all
        if name not in self._models:
            view = self._view or self.store.view(name)
            try:
                children = view.children(name)
            except NotFoundError:
                return None
            self._models[name] = self._gather(view, ModelFacts(name, children))
        return self._models[name]

    def _gather(self, view: View, model: ModelFacts) -> ModelFacts:
        reader, name = RepositoryReader(self.store), model.name
        if CONFIG in model.children.files:
            text = self.store.read(config_key(name)).data.decode(errors="replace")
            try:
                config = parse_config(text, where=config_key(name))
                model = replace(model, text=text, config=config, unknown=tuple(unknown_fields(text)))
            except InvalidInputError as error:
                return replace(model, text=text, unreadable=str(error))
        versions = []
        for number in sorted(chosen(model.config.version_policy, set(model.numbers))):
            own = number >= 0 and str(number) in model.children.folders  # -1 is looked for in 18446744073709551615
            files = tuple(_walk(view, f"{name}/{number}")) if own else ()
            versions.append(VersionFacts(number, model.numbers[number], files))
        held = any(f.path.startswith("model.") for n in model.numbers if n >= 0 for f in _walk(view, f"{name}/{n}"))
        beside = {f"{folder}/{f.path}" for folder in FOLDERS for f in _walk(view, f"{name}/{folder}")}
        model = replace(
            model, loaded=tuple(versions), has_model_file=held, side_files=frozenset({*model.children.files, *beside})
        )
        if model.backend == "onnxruntime":
            loaded = tuple(replace(v, graph=self._graph(reader, model, v)) for v in model.loaded)
            model = replace(model, loaded=loaded)
        numbers = (n for n in sorted(model.numbers, reverse=True) if n > 0)
        newest = next((n for n in numbers if _manifest(reader, name, n) is not None), None)
        return replace(model, published=None if newest is None else reader.version_config(name, newest))

    def _graph(self, reader: RepositoryReader, model: ModelFacts, version: VersionFacts) -> "GraphFacts | None":
        from gravswell.quiver.exporters.inspection import GraphFacts, inspect_graph  # noqa: PLC0415 - imports ONNX

        file = model_path(model, version)
        size = next((f.size for f in version.files if f.path == file), None)
        if file is None or size is None or size >= 2**31:
            return None
        manifest = _manifest(reader, model.name, version.number)
        if manifest is not None and file in manifest.files and self._told(manifest):
            # proved when it was made: not fetched again
            return GraphFacts(
                inputs=manifest.signature.inputs,
                outputs=manifest.signature.outputs,
                opsets={"": manifest.opset},
                ir_version=manifest.ir_version,
            )
        folder = f"{model.name}/{version.number}"
        if self.store.path is not None:
            return inspect_graph(self.store.path / folder / file)
        # one at a time: the next may be as large
        with self._fetching, tempfile.TemporaryDirectory(prefix="gravswell-lint-") as temporary:
            copy = Path(temporary) / str(version.number)
            copy_version(self.store, folder, None, copy, None, progress=self._progress)
            return inspect_graph(copy / file)

    def _told(self, manifest: Manifest) -> bool:
        """Whether the manifest says enough of the graph's age: it holds one opset, and the target of all of them."""
        if self._target is None:
            return True
        return manifest.target is not None and target_of(manifest.target).ml_opset <= self._target.ml_opset


def model_path(model: ModelFacts, version: VersionFacts) -> str | None:
    """The model file within the version, which may be a folder that holds it beside its data; None if not there."""
    names = {f.path for f in version.files}
    if model.file is None:
        return None
    inside = f"{model.file}/{MODEL_FILES['onnxruntime']}"
    return next((path for path in (model.file, inside) if path in names), None)


def _manifest(reader: RepositoryReader, name: str, number: int) -> Manifest | None:
    """What gravswell recorded of a version; None where it did not, and where that is damaged, as ``verify`` tells."""
    try:
        return reader.manifest(name, number)[0] if number > 0 else None
    except (NotFoundError, VerificationError):
        return None


def _walk(view: View, folder: str) -> list[FileInfo]:
    try:
        return view.walk(folder)
    except NotFoundError:
        return []
