"""A published graph once more, with the entry's configuration as it is by now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.manifest import GOLDEN, MODEL_FILE
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.verification import verify_version

from ..networks import classifier


@pytest.fixture
def entry(entry: qv.Entry, given: Path) -> qv.Entry:
    entry.export_version(given)
    return entry


def test_an_edit_reaches_a_version(entry: qv.Entry, repo: qv.ModelRepository) -> None:
    entry.config.add_instance_group(count=3, kind="cpu")
    made = entry.republish()
    reader = RepositoryReader(repo.url)
    assert int(made) == 2
    assert "count: 3" in str(reader.version_config("my-model", 2))
    assert "count" not in str(reader.version_config("my-model", 1))
    before, after = entry.version(1).manifest, made.manifest
    assert {f: before.files[f] for f in (MODEL_FILE, GOLDEN)} == {f: after.files[f] for f in (MODEL_FILE, GOLDEN)}
    assert before.verification == after.verification
    assert (after.parent, after.exporter, after.framework) == (1, before.exporter, before.framework)
    assert verify_version(reader, "my-model", 2).samples == 3


def test_an_older_version_can_be_had_with_the_newest_configuration(entry: qv.Entry, affine: Callable[..., Any]) -> None:
    entry.export_version(affine(scale=3.0))
    entry.config.add_instance_group(count=2, kind="cpu")
    made = entry.republish(1)
    assert made.manifest.files[MODEL_FILE] == entry.version(1).manifest.files[MODEL_FILE]
    assert (int(made), made.manifest.parent) == (3, 2)


def test_a_variant_stays_one(repo: qv.ModelRepository) -> None:
    entry = repo.add("classifier")
    entry.export_version(classifier())
    entry.quantize("fp16")
    entry.config.add_instance_group(count=2, kind="cpu")
    record = entry.republish().manifest.verification
    assert record == entry.version(2).manifest.verification
    assert record.variant is not None


def test_a_field_of_a_newer_triton_reaches_a_version_too(entry: qv.Entry, root: Path) -> None:
    config = root / "my-model/config.pbtxt"
    config.write_text(config.read_text() + "future_thing { a: 1 }\n")
    entry.republish()
    assert "future_thing { a: 1 }" in (root / "my-model/2/.config.pbtxt").read_text()


def test_nothing_new_is_no_version(entry: qv.Entry) -> None:
    with pytest.raises(InvalidInputError, match="has the entry's configuration already"):
        entry.republish()
    assert [int(v) for v in entry.versions] == [1]


def test_a_server_may_not_mix_requests_that_were_not_proved_apart(entry: qv.Entry) -> None:
    entry.config.max_batch_size = 8
    with pytest.raises(InvalidInputError, match="export the model again"):
        entry.republish()
    assert [int(v) for v in entry.versions] == [1]


def test_what_something_else_wrote_is_not_ours_to_publish(entry: qv.Entry, root: Path, given: Path) -> None:
    (root / "my-model/7").mkdir()
    (root / "my-model/7/model.onnx").write_bytes(given.read_bytes())
    entry.config.add_instance_group(count=2, kind="cpu")
    with pytest.raises(InvalidInputError, match=r"(?s)7.*"):
        entry.republish(7)


def test_there_has_to_be_a_version(repo: qv.ModelRepository, entry: qv.Entry) -> None:
    with pytest.raises(NotFoundError, match="no version yet"):
        repo.add("empty").republish()
    with pytest.raises(NotFoundError):
        entry.republish(9)
