"""``--output json``: keys in camelCase, but for what is shown as it stands in a file; and what ``--help`` shows."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from .conftest import Run

AS_STORED = {"manifest", "inputs", "outputs"}
"""What keeps the names of the file it is from: below these keys anything goes."""


def _keys(data: Any) -> Iterator[str]:
    if isinstance(data, list):
        for item in data:
            yield from _keys(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            yield key
            if key not in AS_STORED:
                yield from _keys(value)


@pytest.fixture
def older(tmp_path: Path, model: Path) -> str:
    """``given.onnx`` once more, of an older IR version and with another name for its product."""
    made = onnx.load(str(model))
    made.ir_version = 8
    made.graph.node[0].name = "product"
    onnx.save(made, str(tmp_path / "older.onnx"))
    return "older.onnx"


def test_keys_are_in_camel_case(run: Run, repo: str, older: str) -> None:
    assert run("export", repo, "m", older).code == 0
    Path(repo, "m/README.md").write_text("mine")
    seen: set[str] = set()
    for command in (
        ("init", "s"),
        ("add", "s", "n"),
        ("export", repo, "m", "given.onnx"),
        ("ls", repo),
        ("show", repo, "m"),
        ("show", repo, "m/1"),
        ("verify", repo),
        ("lint", repo),
        ("diff", repo, "m", 1, 2),
        ("promote", repo, "m", 1, "champion"),
        ("promote", repo, "m", 2, "champion"),
        ("rollback", repo, "m", "champion"),
        ("aliases", repo),
        ("history", repo, "m"),
        ("unalias", repo, "m", "champion"),
        ("prune", repo, "--keep", 1, "--dry-run"),
        ("copy", repo, "m", "s"),
        ("sync", repo, "s", "--dry-run"),
        ("import", repo, "t"),
        ("config", "set", repo, "m", "instance_group[0].count=2", "--dry-run"),
        ("agent", "list", "--repository", repo, "--once"),
    ):
        result = run(*command, "--output", "json")
        assert result.out, result.err
        seen |= set(_keys(result.data))
    assert {"wayOut", "dryRun", "irVersion", "servedBy", "nodesAdded", "changed"} <= seen
    assert [key for key in seen if "_" in key] == []


def test_help_groups_the_commands_and_imports_nothing_heavy(run: Run) -> None:
    out = run("--help").out
    panels = ["Repository", "Versions and aliases", "Check", "Serve and ask", "Tune", "Kubernetes", "Cluster on this"]
    places = [out.find(f"─ {panel}") for panel in panels]
    assert -1 not in places
    assert places == sorted(places)
    assert "─ Commands ─" not in out, "every command is in a group"
    code = (
        "import sys; from gravswell.cli.app import _assemble; _assemble()\n"
        "heavy = ['onnx', 'onnxruntime', 'numpy', 'torch', 'tritonclient', 'obstore', 'kopf', 'kubernetes',\n"
        "         'asyncio', 'pygments']\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
