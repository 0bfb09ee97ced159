"""From what a user types to what an export takes: a model, from a file or a Python object; its sample inputs."""

import importlib
import importlib.util
import inspect
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravswell.errors import GravswellError, InvalidInputError, NotFoundError, UnsupportedError
from gravswell.extras import install
from gravswell.quiver.fusion import called

_FILES = (".onnx", ".keras", ".h5", ".ubj", ".json", ".txt")
"""Of models that exporters read themselves: no code in them is run."""
_PICKLES = (".pkl", ".pickle", ".joblib")
_TORCH = (".pt", ".pth", ".pt2")
_EXTRAS = frozenset({"keras", "lightgbm", "sklearn", "torch", "xgboost"})
"""Modules that an extra of the same name brings."""
_WEIGHTS = (".ckpt", ".safetensors")
_BUILD = "name a function that builds the module, loads the file into it and returns it (file.py:function)"


def load_model(given: str, *, allow_pickle: bool, params: Mapping[str, Any] | None = None) -> Any:
    """The model that ``given`` names.

    A file that an exporter reads (``model.onnx``, ``model.keras``, ``model.ubj``…), or a SavedModel's folder;
    ``module:attribute`` or ``file.py:attribute``, where a function is called for the model that it returns; or a pickle
    of scikit-learn's (``.joblib``, ``.pkl``) or torch's (``.pt``, ``.pth``, ``.pt2``), which is loaded only with
    ``allow_pickle``: loading one runs whatever code is in it. ``params``: what a function is called with, if it takes
    something.
    """
    if given.endswith(_FILES) or Path(given).is_dir():
        return Path(given)
    if given.endswith(_PICKLES):
        return _unpickle(Path(given), allow_pickle)
    if given.endswith(_TORCH):
        return _of_torch(Path(given), allow_pickle)
    if given.endswith(_WEIGHTS):
        raise _weights_alone(given)
    module, colon, attribute = given.rpartition(":")
    if not colon or not module or not attribute:
        raise InvalidInputError(
            f"{given!r} names no model: give a file (model.onnx, model.keras, model.joblib…) or a Python object "
            f"(file.py:attribute, package.module:attribute)"
        )
    with _guarded(f"running {module}"):
        found = _attribute(_module(module), module, attribute)
        return called(found, params) if inspect.isfunction(found) else found


def _attribute(found: Any, module: str, attribute: str) -> Any:
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = (
                ", ".join(name for name in vars(found) if not name.startswith("_")) if inspect.ismodule(found) else ""
            )
            raise NotFoundError(f"{module} has no {attribute!r}" + (f"; it has: {names}" if names else ""))
        found = getattr(found, part)
    if inspect.isclass(found):
        raise InvalidInputError(
            f"{module}:{attribute} is a class: name a model made of it, or a function that makes and returns one"
        )
    return found


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    """Code that is not ours: whatever it raises, or that it ends the process, is told in one line."""
    try:
        yield
    except GravswellError:
        raise
    except SystemExit as end:
        raise InvalidInputError(
            f"{what} ended the process (exit {end.code}): keep such calls under if __name__ == '__main__'"
        ) from end
    except ModuleNotFoundError as error:
        raise _lacking(what, error) from None
    except Exception as error:
        raise InvalidInputError(f"{what} failed: {type(error).__name__}: {error}") from error


def _lacking(what: str, error: ModuleNotFoundError) -> InvalidInputError:
    module = (error.name or str(error)).partition(".")[0]
    extra = f": {install(module)}" if module in _EXTRAS else ""
    return InvalidInputError(f"{what} needs {error.name!r}, which is not installed{extra}")


def _module(name: str) -> Any:
    try:
        if name.endswith(".py"):
            return _from_file(Path(name))
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise NotFoundError(f"there is no module {name!r}: name a file.py, or install its package") from None
        raise


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InvalidInputError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where classes defined in it are looked up
    sys.path.insert(0, str(path.parent.resolve()))
    spec.loader.exec_module(module)
    return module


def _unpickle(path: Path, allowed: bool) -> Any:
    _check_allowed(path, allowed)
    try:
        import joblib  # noqa: PLC0415 - comes with scikit-learn
    except ImportError:
        raise UnsupportedError(f"loading a pickled estimator needs scikit-learn: {install('sklearn')}") from None
    with _guarded(f"loading {path}"):
        return joblib.load(path)  # reads plain pickles too


def _of_torch(path: Path, allowed: bool) -> Any:
    _check_allowed(path, allowed, f"; for weights alone, {_BUILD}")
    try:
        from gravswell.quiver.exporters.torch.saved import load  # noqa: PLC0415 - imports torch
    except ImportError as error:
        raise UnsupportedError(f"loading {path} needs {error.name}: {install('torch')}") from None
    with _guarded(f"loading {path}"):
        found = load(path)
    if isinstance(found, Mapping):
        raise _weights_alone(str(path))
    return found


def _weights_alone(path: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path} is a torch checkpoint, which says nothing of the module that it belongs to: {_BUILD}"
    )


def _check_allowed(path: Path, allowed: bool, more: str = "") -> None:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    if not allowed:
        raise InvalidInputError(
            f"{path} is a pickle, and loading one runs whatever code is in it. If you made it, or trust whoever did, "
            f"repeat with --allow-pickle; if not, ask for an .onnx file{more}"
        )


def named(option: str, values: Sequence[str] | None) -> list[tuple[str, str]]:
    """What a repeatable option was given: ``NAME=VALUE`` each."""
    pairs = []
    for value in values or []:
        key, equals, rest = value.partition("=")
        if not equals or not key or not rest:
            raise InvalidInputError(f"{option} {value!r}: write NAME=VALUE")
        pairs.append((key, rest))
    return pairs


def shape(name: str, dims: str) -> tuple[int | None, ...]:
    """The shape of the input ``name`` that a user means: sizes with commas, -1 for any; ``()`` is a number's."""
    try:
        numbers = [] if dims == "()" else [int(dim) for dim in dims.split(",")]
    except ValueError:
        raise InvalidInputError(
            f"--input-shape {name}={dims}: write sizes with commas, -1 for any: x=-1,64; () for a number"
        ) from None
    return tuple(None if n == -1 else n for n in numbers)


def load_samples(paths: Sequence[Path]) -> list[dict[str, NDArray[Any]]]:
    """One batch from each ``.npz``: its arrays, by the names they have in it. Nothing is ever unpickled."""
    return [_sample(path) for path in paths]


def _sample(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise InvalidInputError(f"{path} is no .npz: write it with numpy.savez(file, x=array, …)")
    sample: dict[str, NDArray[Any]] = {}
    with np.load(path, allow_pickle=False) as stored:
        for name in stored.files:
            try:
                array = stored[name]
            except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
                raise InvalidInputError(
                    f"{path}: {name!r} cannot be read ({error}): only plain arrays are taken, never pickled objects; "
                    f"for text, an array of fixed-width strings"
                ) from None
            if not isinstance(array, np.ndarray):
                raise InvalidInputError(f"{path}: {name!r} is no array, which numpy.savez would have written")
            sample[name] = array
    if not sample:
        raise InvalidInputError(f"{path} holds no array: write one for each input, under its name")
    return sample
