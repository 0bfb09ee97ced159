"""What is not installed: an environment that holds the base requirements alone, and each command that needs more."""

import subprocess
import sys
from pathlib import Path

import pytest

from gravswell.extras import install

from ..environments import make_environment, without_python_variables


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment into which the base requirements are linked, and nothing else."""
    return make_environment(tmp_path_factory.mktemp("base"), "gravswell")


def _run(base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(base), "-m", "gravswell", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=without_python_variables(),
    )


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("cluster up", "operator"),
        ("cluster status", "operator"),
        ("cluster down", "operator"),
        ("cluster kubeconfig", "operator"),
        ("cluster logs pod", "operator"),
        ("demo", "demo"),
        ("demo --no-cluster", "demo"),
        ("operator run", "operator"),
        ("plan examples", "operator"),
    ],
)
def test_a_command_names_the_extra_that_it_needs(base: Path, arguments: str, extra: str) -> None:
    result = _run(base, *arguments.split())
    assert result.returncode == 9, result.stderr
    assert f"is not installed: {install(extra)}\n" in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_what_needs_no_extra_works(base: Path, tmp_path: Path) -> None:
    assert _run(base, "--help").returncode == 0
    for topic in ("agent", "cluster", "demo", "operator", "plan"):
        assert _run(base, topic, "--help").returncode == 0
    assert _run(base, "init", str(tmp_path / "r")).returncode == 0
    listed = _run(base, "agent", "list", "--repository", str(tmp_path / "r"), "--once")
    assert listed.returncode == 0, listed.stderr
    asked = _run(base, "prune", str(tmp_path / "r"), "--keep", "3", "--context", "other")
    assert asked.returncode == 9, asked.stderr
    assert asked.stderr == f"error: `gravswell prune` needs kubernetes, which is not installed: {install('kube')}\n"
    (tmp_path / "train.py").write_text("import sklearn\n")
    needs = _run(base, "export", str(tmp_path / "r"), "m", str(tmp_path / "train.py:model"), "--add")
    assert needs.returncode == 2
    assert f"needs 'sklearn', which is not installed: {install('sklearn')}" in needs.stderr
    assert sys.prefix not in needs.stderr
