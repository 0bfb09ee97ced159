"""Removals beside exports and readers in other processes, which die at random moments. See ``racing.py``."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.verification import verify_version

Affine = Callable[..., Any]


class Race:
    """A scenario that ran, and what its processes logged: the number of each line of a kind."""

    def __init__(self, scenario: str, folder: Path, model: Any, seed: int, kills: int) -> None:
        self.root = folder / "repositories/my-repo"
        self.root.parent.mkdir()
        (folder / "given.onnx").write_bytes(model.SerializeToString())
        logs = folder / "logs"
        logs.mkdir()
        arguments = [scenario, self.root, folder / "given.onnx", logs, seed, kills]
        qv.ModelRepository(self.root).add("m")
        program = [sys.executable, str(Path(__file__).with_name("racing.py")), *map(str, arguments)]
        ended = subprocess.run(program, capture_output=True, text=True, timeout=200, check=False)
        assert ended.returncode == 0, ended.stderr
        self.lines = [line for path in logs.iterdir() for line in path.read_text().splitlines(keepends=True)]

    def numbers(self, kind: str) -> list[int]:
        """Of the lines that were written to their end."""
        return [int(line.split()[1]) for line in self.lines if line.startswith(f"{kind} ") and line.endswith("\n")]


@pytest.mark.parametrize("seed", [1, 2])
def test_removals_beside_exports_and_readers(tmp_path: Path, affine: Affine, seed: int) -> None:
    race = Race("remove", tmp_path, affine(), seed, kills=80)
    published, removing = race.numbers("published"), race.numbers("removing")
    assert len(published) > 20
    assert race.numbers("read")
    assert len(set(published)) == len(published), "a number is given once, whatever was removed"

    repository = qv.ModelRepository.open(race.root)
    reader = RepositoryReader(race.root)
    if "m" not in repository.models:
        repository.add("m")
    listed = [info.number for info in reader.versions("m")]
    for number in listed:
        assert verify_version(reader, "m", number).samples == 3
    if listed:  # the entry as it is was made before the oldest of them
        gone = {number for number in published if number > min(listed)} - set(listed) - set(removing)
        assert not gone, "what was said to be published is there until it is removed"
    made = repository.models["m"].export_version(affine())
    assert int(Path(made).parent.name) > max(published), "the next number is a new one"
    assert sorted(race.root.parent.iterdir()) == [race.root], "the last writer took what the dead ones left"
    assert {path.name for path in race.root.iterdir()} == {"m", ".m.gravswell.json"}


def test_a_repository_that_is_deleted_and_made_again(tmp_path: Path, affine: Affine) -> None:
    race = Race("delete", tmp_path, affine(), seed=3, kills=80)
    assert race.numbers("published")
    repository = qv.ModelRepository(race.root)
    if "m" not in repository.models:
        repository.add("m")
    repository.models["m"].export_version(affine())
    repository.delete()
    assert list(race.root.parent.iterdir()) == []
