"""The files of a pipeline of Python functions: what a server runs, as ``gravswell_calling.py`` reads it."""

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gravswell.pipelines import calling
from gravswell.pipelines.shipping import Shipment, ship
from gravswell.quiver.composition.opening import MemberVersion
from gravswell.quiver.manifest import PYTHON_FILE, REQUIREMENTS_FILE, Signature

if TYPE_CHECKING:
    from gravswell.pipelines.authoring import Pipeline

_CALLING = "gravswell_calling.py"


def shipment_of(pipeline: "Pipeline") -> Shipment:
    """What goes along with the function as it is now: before the first run, nothing that runs leave behind.

    InvalidInputError names what cannot be written as source.
    """
    return ship(pipeline.function, f"../{calling.ASSETS_FOLDER}")


def write_python(
    pipeline: "Pipeline",
    shipment: Shipment,
    members: Mapping[str, MemberVersion],
    signature: Signature,
    folder: Path,
    *,
    max_batch_size: int,
) -> None:
    """Write our two files, the user's source with what it needs, and the description of both."""
    here = files("gravswell.pipelines")
    (folder / PYTHON_FILE).write_bytes((here / "runtime" / "model.py").read_bytes())
    (folder / _CALLING).write_bytes((here / "calling.py").read_bytes())
    source = folder / calling.SOURCE_FOLDER
    source.mkdir()
    (source / calling.SOURCE_FILE).write_text(shipment.source, encoding="utf-8")
    for inside, path in shipment.modules.items():
        target = source / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        for package in target.parents[: len(Path(inside).parents) - 1]:
            (package / "__init__.py").touch()  # a folder without one gives way to any package of its name
    assets = {name: f"{calling.ASSETS_FOLDER}/{name}-{path.name}" for name, path in pipeline.assets.items()}
    if shipment.arrays or assets:
        (folder / calling.ASSETS_FOLDER).mkdir()
    for name, array in shipment.arrays.items():
        np.save(folder / calling.ASSETS_FOLDER / f"{name}.npy", array, allow_pickle=False)
    for name, inside in assets.items():
        shutil.copyfile(pipeline.assets[name], folder / inside)
    requirements = shipment.requirements if pipeline.requirements is None else list(pipeline.requirements)
    if requirements:
        (folder / REQUIREMENTS_FILE).write_text("".join(f"{line}\n" for line in requirements))
    spec = {
        "schema": "gravswell.dev/pipeline/v1",
        "function": pipeline.name,
        "max_batch_size": max_batch_size,
        "inputs": [record.model_dump() for record in signature.inputs],
        "outputs": [record.model_dump() for record in signature.outputs],
        "members": {
            alias: {
                "max_batch_size": member.max_batch_size,
                "inputs": [record.model_dump() for record in member.inputs],
                "outputs": [record.model_dump() for record in member.outputs],
            }
            for alias, member in members.items()
        },
        "assets": assets,
    }
    (folder / calling.SPEC_FILE).write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
