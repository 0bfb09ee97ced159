"""The real helm, on the chart in the checkout."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gravswell_operator.devcluster import ControlPlane, ensure_binaries

CHART = Path(__file__).parents[2] / "charts/gravswell"

HELM_SECONDS = 300
"""More than any --timeout of a test's, so that helm itself says what was not ready."""

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """``helm(*arguments)``: what it printed, failed or not; it sees nothing of this machine's user."""
    program = ensure_binaries(names=["helm"])["helm"]
    home = str(tmp_path_factory.mktemp("helm"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": home, "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [program, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=HELM_SECONDS
        )

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Callable[..., list[dict[str, Any]]]:
    """``render(key=value, ...)``: the documents of the chart, values by their dotted paths."""

    def run(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        flags = [
            flag for path, value in (values or {}).items() for flag in ("--set-json", f"{path}={json.dumps(value)}")
        ]
        done = helm("template", "release", str(CHART), "--namespace", "system", "--skip-tests", *flags)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real control plane without nodes: what is admitted and granted, not what runs."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running
