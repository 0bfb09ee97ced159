"""The versions that the images are built of are those that the project asks for."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .operating import ROOT

EXTRAS = ("operator", "gcs", "gke", "s3", "azure")
"""Those of ``images/lock.sh``."""


def locked(file: str) -> dict[str, str]:
    text = (ROOT / "images" / file).read_text()
    found = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    return [one for one in map(Requirement, lines) if one.name != project["name"]]


@pytest.mark.parametrize("requirement", wanted(), ids=lambda requirement: requirement.name)
def test_what_the_project_needs_is_locked_at_a_version_that_it_takes(requirement):
    version = locked("requirements.txt").get(canonicalize_name(requirement.name))
    assert version is not None, "run images/lock.sh"
    assert requirement.specifier.contains(version), "run images/lock.sh"


def test_the_servers_packages_are_those_that_the_embedded_triton_installs():
    installer = (ROOT / "repo_tools/gravswell/serving/triton/install.py").read_text()
    packages = locked("server-requirements.txt")
    for name in ("nvidia-pytriton", "onnxruntime"):
        assert packages[name] in installer
