"""Files of torch: a whole module, TorchScript, an exported program. To load one is to run the code that is in it."""

import zipfile
from pathlib import Path
from typing import Any

import torch


def load(path: Path) -> Any:
    """What is in the file, on the CPU: a module, or whatever was saved. Raises whatever torch or that code raises."""
    if path.suffix == ".pt2":
        return torch.export.load(path)
    if _is_script(path):
        return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return torch.load(path, map_location="cpu", weights_only=False)


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2].startswith("code/") for name in archive.namelist())
