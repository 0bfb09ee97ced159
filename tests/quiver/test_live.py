"""The configuration as an object: every edit is on disk at once, and nobody's edit is lost."""

from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError
from gravswell.quiver.config import parse_config


def _on_disk(root: Path) -> str:
    return (root / "my-model/config.pbtxt").read_text()


def test_prints_as_the_file(entry: qv.Entry, root: Path) -> None:
    assert str(entry.config) == 'name: "my-model"\nplatform: "onnxruntime_onnx"\n' == repr(entry.config)
    assert _on_disk(root) == str(entry.config)


def test_edits_at_every_depth_are_written(entry: qv.Entry, root: Path) -> None:
    config = entry.config
    config.max_batch_size = 8
    config.add_input("x", (None, 64))
    config.add_output("y", (-1, 1), "int64")
    config.add_instance_group(count=4)
    config.instance_group[0].gpus.append(1)
    config.instance_group.add(count=1, kind=2)
    config.scale_instance_group(3, group=1)
    config.dynamic_batching.max_queue_delay_microseconds = 100
    config.dynamic_batching.preferred_batch_size.extend([4, 8])
    config.parameters["k"].string_value = "v"
    config.version_policy.latest.num_versions = 2
    config.input[0].dims[1] = 32
    written = parse_config(_on_disk(root))
    assert written == config.message
    assert list(written.input[0].dims) == [-1, 32]
    assert [(g.count, g.kind, list(g.gpus)) for g in written.instance_group] == [(4, 1, [1]), (3, 2, [])]
    assert list(written.dynamic_batching.preferred_batch_size) == [4, 8]
    assert written.parameters["k"].string_value == "v"
    del config.instance_group[0]
    del config.parameters["k"]
    assert len(parse_config(_on_disk(root)).instance_group) == 1
    assert "parameters" not in _on_disk(root)


def test_steps_of_an_ensemble(entry: qv.Entry, root: Path) -> None:
    entry.config.add_step("denoise", {"x": "raw"}, {"y": "clean"})
    (step,) = parse_config(_on_disk(root)).ensemble_scheduling.step
    assert (step.model_name, step.model_version, dict(step.input_map)) == ("denoise", -1, {"x": "raw"})


def test_behaves_like_the_message(entry: qv.Entry) -> None:
    config = entry.config
    group = config.add_instance_group(count=2, kind="cpu", name="g")
    assert group.count == 2
    assert [g.name for g in config.instance_group] == ["g"]
    assert len(config.instance_group) == 1
    assert bool(config.input) is False
    assert config == config.message
    assert config.HasField("dynamic_batching") is False
    assert "max_batch_size" in dir(config)
    assert "count: 2" in str(group)
    with pytest.raises(AttributeError):
        config.no_such_field = 1
    with pytest.raises(AttributeError):
        _ = config.no_such_field


def test_hand_written_text_survives_an_edit(entry: qv.Entry, root: Path) -> None:
    path = root / "my-model/config.pbtxt"
    path.write_text(path.read_text() + "# keep me\nfuture_setting { on: true }\n")
    entry.config.add_instance_group(count=4)
    assert "# keep me\nfuture_setting { on: true }\n" in _on_disk(root)
    assert "count: 4" in _on_disk(root)


@pytest.mark.parametrize("count", [0, -1, 1.5, "4", True])
def test_counts_that_are_none(entry: qv.Entry, root: Path, count: object) -> None:
    before = _on_disk(root)
    with pytest.raises(InvalidInputError, match="instances"):
        entry.config.add_instance_group(count=count)
    assert _on_disk(root) == before == str(entry.config)


def test_other_wrong_edits_change_nothing(entry: qv.Entry, root: Path) -> None:
    before = _on_disk(root)
    config = entry.config
    with pytest.raises(InvalidInputError, match="folder's"):
        config.name = "other"
    with pytest.raises(InvalidInputError, match="kind"):
        config.add_instance_group(kind="tpu")
    with pytest.raises(InvalidInputError, match="add_instance_group"):
        config.scale_instance_group(2)
    with pytest.raises(InvalidInputError, match="shape"):
        config.add_input("x", (0, 4))
    with pytest.raises(InvalidInputError, match="type"):
        config.add_input("x", (None, 4), "complex64")
    with pytest.raises(InvalidInputError, match="max_batch_size"):
        config.max_batch_size = "many"
    assert _on_disk(root) == before == str(config)


def test_another_writer_s_edit_is_taken_up(entry: qv.Entry, root: Path) -> None:
    held = entry.config
    other = qv.ModelRepository.open(root).models["my-model"]
    other.config.add_instance_group(count=4)
    assert "count: 4" in str(entry.config)
    assert entry.config is held
    held.max_batch_size = 2
    assert "count: 4" in _on_disk(root)
    assert "max_batch_size: 2" in _on_disk(root)


def test_an_edit_of_what_another_changed_is_refused_not_lost(entry: qv.Entry, root: Path) -> None:
    held = entry.config
    qv.ModelRepository.open(root).models["my-model"].config.add_instance_group(count=4)
    with pytest.raises(ConflictError, match="changed by another writer"):
        held.max_batch_size = 2
    assert "count: 4" in str(held), "the object shows what is on disk again"
    held.max_batch_size = 2
    assert "count: 4" in _on_disk(root)


def test_a_part_taken_before_a_change_is_refused(entry: qv.Entry, root: Path) -> None:
    group = entry.config.add_instance_group(count=1)
    qv.ModelRepository.open(root).models["my-model"].config.max_batch_size = 4
    assert entry.config.max_batch_size == 4
    with pytest.raises(ConflictError, match=r"entry\.config again"):
        group.count = 3


def test_an_entry_that_was_removed(entry: qv.Entry, root: Path) -> None:
    qv.ModelRepository.open(root).remove("my-model")
    with pytest.raises(NotFoundError, match="my-model"):
        _ = entry.config


def test_a_config_that_does_not_parse(entry: qv.Entry, root: Path) -> None:
    (root / "my-model/config.pbtxt").write_text("name: {")
    with pytest.raises(InvalidInputError, match=r"my-model/config\.pbtxt"):
        _ = entry.config


def test_parts_taken_out_of_a_list_or_a_map_are_live_too(entry: qv.Entry, root: Path) -> None:
    config = entry.config
    for _ in range(2):
        config.add_instance_group(count=1)
    for group in config.instance_group[:]:
        group.count = 3
    for k, group in enumerate(reversed(config.instance_group)):
        group.name = f"g{k}"
    config.parameters["k"].string_value = "v"
    for key, value in config.parameters.items():
        value.string_value = f"{key} edited"
    for value in config.parameters.values():
        value.string_value += " twice"
    written = parse_config(_on_disk(root))
    assert [(g.count, g.name) for g in written.instance_group] == [(3, "g1"), (3, "g0")]
    assert written.parameters["k"].string_value == "k edited twice"
    assert list(config.parameters.keys()) == ["k"]


def test_what_another_writes_during_an_edit_is_a_conflict_at_its_end(entry: qv.Entry, root: Path) -> None:
    other = entry.config.message
    other.max_batch_size = 4

    def both() -> None:
        with entry.config.editing():
            entry.config.metric_tags["a"] = "b"
            (root / "my-model/config.pbtxt").write_text(str(other))
            entry.config.metric_tags["c"] = "d"

    with pytest.raises(ConflictError):
        both()
    assert _on_disk(root) == str(other)
    assert entry.config.max_batch_size == 4


def test_a_name_may_be_left_out(entry: qv.Entry, root: Path) -> None:
    """Triton takes the folder's."""
    (root / "my-model/config.pbtxt").write_text('platform: "onnxruntime_onnx"  # by hand\n')
    entry.config.set({"metric_tags[a]": "b"})
    entry.config.add_instance_group(count=2, kind="cpu")
    assert _on_disk(root).startswith('platform: "onnxruntime_onnx"  # by hand\n')
    assert parse_config(_on_disk(root)).instance_group[0].count == 2


def test_a_step_takes_no_other_scheduling_away(entry: qv.Entry, root: Path) -> None:
    entry.config.max_batch_size = 8
    entry.config.set_dynamic_batching(max_queue_delay_microseconds=100)
    before = _on_disk(root)
    with pytest.raises(InvalidInputError, match="would take the place of dynamic_batching"):
        entry.config.add_step("denoise", {"x": "raw"}, {"y": "clean"})
    with pytest.raises(InvalidInputError, match="would take the place of dynamic_batching"):
        entry.config.set({"sequence_batching.max_sequence_idle_microseconds": "5"})
    assert _on_disk(root) == before == str(entry.config)
    entry.config.set({"dynamic_batching": "", "sequence_batching.max_sequence_idle_microseconds": "5"})
    assert "dynamic_batching" not in _on_disk(root)
