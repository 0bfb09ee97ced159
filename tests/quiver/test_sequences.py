"""Models that take sequences: what the server fills in and keeps is no client's tensor."""

from pathlib import Path
from typing import Any

import onnx
import pytest

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError

from ..sequences import START, STATE, beginning_told, running_sum


def made(root: Path, name: str, graph: onnx.ModelProto, **batching: Any) -> qv.Entry:
    entry = qv.ModelRepository(root).add(name, qv.Platform.ONNX)
    entry.config.max_batch_size = 4
    entry.config.set_sequence_batching(**batching)
    entry.export_version(graph)
    return entry


def tensors(entry: qv.Entry) -> tuple[list[str], list[str]]:
    config = entry.config.message
    return [tensor.name for tensor in config.input], [tensor.name for tensor in config.output]


def test_a_control_is_filled_in_by_the_server(tmp_path: Path) -> None:
    entry = made(tmp_path, "told", beginning_told(), control_input=[START], direct={})
    assert tensors(entry) == (["x"], ["y"])
    assert list(entry.inputs) == ["x"]
    entry.export_version(beginning_told())
    assert [int(version) for version in entry.versions] == [1, 2]
    assert qv.lint.lint(tmp_path) == []
    assert all(qv.verify_version(qv.RepositoryReader(str(tmp_path)), "told", n).samples for n in (1, 2))


def test_a_state_is_kept_by_the_server(tmp_path: Path) -> None:
    entry = made(tmp_path, "sum", running_sum(), state=[STATE], oldest={"max_candidate_sequences": 4})
    assert tensors(entry) == (["x"], ["y"])
    assert qv.lint.lint(tmp_path) == []


def test_a_version_that_takes_something_else_is_refused(tmp_path: Path) -> None:
    entry = made(tmp_path, "told", beginning_told(), control_input=[START], direct={})
    with pytest.raises(InvalidInputError, match="'before' is new"):
        entry.export_version(running_sum())
