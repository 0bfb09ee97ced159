"""The typed config: sections by one call each, checks when they are written, and the real Triton on all of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tritonclient.http import InferenceServerClient

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError
from gravswell.quiver.config import parse_config
from gravswell.serving.triton import EmbeddedTriton

Affine = Callable[..., Any]
PAIR = {"int32_false_true": [0, 1]}
OTHER = {"bool_false_true": [False, True]}


@pytest.fixture
def batched(entry: qv.Entry, affine: Affine) -> qv.Entry:
    entry.export_version(affine(), max_batch_size=8)
    return entry


def _on_disk(root: Path) -> Any:
    return parse_config((root / "my-model/config.pbtxt").read_text())


def _refuses(config: Any, root: Path, edit: Callable[[Any], Any], fact: str) -> None:
    before = (root / "my-model/config.pbtxt").read_text()
    with pytest.raises(InvalidInputError, match=fact):
        edit(config)
    assert (root / "my-model/config.pbtxt").read_text() == before
    assert str(config) == before, "the object is what the file says"


@pytest.mark.parametrize(
    ("edit", "fact"),
    [
        (lambda c: c.set_dynamic_batching(preferred_batch_size=[4, 16]), r"ng\.preferred_batch_size: .*16"),
        (lambda c: c.dynamic_batching.preferred_batch_size.append(16), r"dynamic_batching\.preferred_batch_size: .*16"),
        (
            lambda c: c.set_dynamic_batching(priority_levels=2, default_priority_level=3),
            r"dynamic_batching\.default_priority_level",
        ),
        (
            lambda c: c.set_dynamic_batching(
                priority_levels=2, default_priority_level=1, priority_queue_policy={3: {"max_queue_size": 1}}
            ),
            r"priority_queue_policy\[3\]",
        ),
        (
            lambda c: c.set_dynamic_batching(preserve_ordering=True, priority_levels=2, default_priority_level=1),
            r"dynamic_batching\.preserve_ordering",
        ),
        (lambda c: c.set_dynamic_batching(max_queue_delay_microseconds=-1), r"dynamic_batching: .*-1"),
        (lambda c: c.set_sequence_batching(direct={"minimum_slot_utilization": 2}), r"minimum_slot_utilization"),
        (lambda c: c.set_sequence_batching(direct={}, oldest={}), "direct or oldest"),
        (
            lambda c: c.set_sequence_batching(
                control_input=[{"name": "s", "control": [{"kind": "CONTROL_SEQUENCE_END", **PAIR, **OTHER}]}]
            ),
            r"control_input\[0\]\.control\[0\]: CONTROL_SEQUENCE_END",
        ),
        (lambda c: c.add_model_warmup("w", {"q": {"data_type": "TYPE_FP32", "dims": [4]}}), r"inputs\[q\]: .*no input"),
        (lambda c: c.add_model_warmup("w", {"x": {"data_type": "TYPE_FP32", "dims": [5]}}), r"inputs\[x\]\.dims"),
        (lambda c: c.add_model_warmup("w", {}, batch_size=9), r"model_warmup\[0\]\.batch_size"),
        (lambda c: c.add_model_warmup("w", {"x": {"data_type": "FLOAT"}}), "model_warmup"),
        (lambda c: c.add_instance_group(kind="cpu", gpus=[0]), r"instance_group\[0\]\.gpus"),
        (lambda c: c.add_instance_group(kind="cpu", profile=["0"]), r"instance_group\[0\]\.profile"),
        (lambda c: c.set_parameters({"intra_op_thread_count": "many"}), r"parameters\[intra_op_thread_count\]"),
        (lambda c: c.set_version_policy(num_versions=1, versions=[2]), "num_versions or versions"),
        (lambda c: setattr(c, "max_batch_size", -1), "max_batch_size: "),
        (lambda c: setattr(c.input[0], "data_type", "FP32"), "data_type is one of TYPE_INVALID, TYPE_BOOL"),
        (lambda c: setattr(c, "max_batch_size", "8"), "max_batch_size: "),
        (lambda c: setattr(c.optimization.graph, "level", 2**40), "level: "),
    ],
)  # fmt: skip
def test_what_triton_refuses_is_refused_when_it_is_written(
    batched: qv.Entry, root: Path, edit: Callable[[Any], Any], fact: str
) -> None:
    _refuses(batched.config, root, edit, fact)


def test_what_would_do_nothing_is_refused_of_a_call(entry: qv.Entry, affine: Affine, root: Path) -> None:
    entry.export_version(affine())
    _refuses(entry.config, root, lambda c: c.set_dynamic_batching(), r"dynamic_batching: .*max_batch_size is 0")


def test_one_way_of_scheduling_never_takes_the_place_of_another(batched: qv.Entry, root: Path) -> None:
    config = batched.config
    config.set_dynamic_batching(max_queue_delay_microseconds=100)
    for edit in (
        lambda c: c.set_sequence_batching(oldest={"max_candidate_sequences": 4}),
        lambda c: setattr(c.sequence_batching, "max_sequence_idle_microseconds", 5),
    ):
        _refuses(config, root, edit, r"sequence_batching would take the place of dynamic_batching.*ClearField")
    config.ClearField("dynamic_batching")
    config.set_sequence_batching(oldest={"max_candidate_sequences": 4})
    assert not config.HasField("dynamic_batching")
    _refuses(config, root, lambda c: c.set_response_cache(), r"response_cache\.enable: .*sequence_batching")


def test_what_is_right_only_together_is_one_edit(batched: qv.Entry, root: Path) -> None:
    config = batched.config
    with config.editing():
        config.dynamic_batching.preferred_batch_size.append(16)
        config.max_batch_size = 16
        assert _on_disk(root).max_batch_size == 8, "nothing is written before the end"
    assert list(_on_disk(root).dynamic_batching.preferred_batch_size) == [16]

    def wrong(config: Any) -> None:
        with config.editing():
            config.max_batch_size = 32
            config.dynamic_batching.preferred_batch_size.append(64)

    _refuses(config, root, wrong, "64")
    config.max_batch_size = 32
    assert _on_disk(root).max_batch_size == 32


def test_an_edit_that_is_refused_inside_takes_none_along(batched: qv.Entry, root: Path) -> None:
    config = batched.config
    refused: list[Callable[[], object]] = [
        lambda: setattr(config, "max_batch_size", "many"),
        lambda: config.add_instance_group(count=0),
        lambda: config.set({"metric_tags[a]": "b", "no_such_field": "1"}),
        lambda: config.replace(""),
    ]
    with config.editing():
        config.max_batch_size = 16
        for edit in refused:
            with pytest.raises(InvalidInputError):
                edit()
        config.set({"metric_tags[c]": "d"})
        config.dynamic_batching.preferred_batch_size.append(16)
    written = _on_disk(root)
    assert (written.max_batch_size, dict(written.metric_tags)) == (16, {"c": "d"})
    assert list(written.dynamic_batching.preferred_batch_size) == [16]
    assert not written.instance_group


def test_what_would_be_set_inside_an_edit_is_shown_with_it(batched: qv.Entry, root: Path) -> None:
    before = _on_disk(root)
    with batched.config.editing():
        batched.config.max_batch_size = 16
        shown = batched.config.set({"metric_tags[a]": "b"}, dry_run=True)
        assert parse_config(shown).max_batch_size == 16
        assert _on_disk(root) == before
    assert not _on_disk(root).metric_tags


def test_an_old_mistake_is_no_obstacle_but_no_version_is_published_with_it(
    batched: qv.Entry, affine: Affine, root: Path
) -> None:
    file = root / "my-model/config.pbtxt"
    file.write_text(file.read_text() + "dynamic_batching { preferred_batch_size: [ 99 ] }  # by hand\n")
    batched.config.add_instance_group(count=2)
    assert "# by hand" in file.read_text()
    with pytest.raises(InvalidInputError, match=r"preferred_batch_size 99.*raise max_batch_size"):
        batched.export_version(affine())
    assert batched.versions == [1]
    del batched.config.dynamic_batching.preferred_batch_size[:]
    batched.export_version(affine())


def test_parts_may_be_added_one_by_one(batched: qv.Entry) -> None:
    sample = batched.config.model_warmup.add()
    sample.name = "first"
    sample.batch_size = 1
    sample.inputs["x"].data_type = "TYPE_FP32"
    sample.inputs["x"].dims.append(4)
    sample.inputs["x"].zero_data = True
    assert batched.config.model_warmup[0].inputs["x"].zero_data


def test_the_real_triton_takes_every_section(batched: qv.Entry, affine: Affine, repo: qv.ModelRepository) -> None:
    """On two models, as dynamic and sequence batching exclude one another."""
    config = batched.config
    config.set_dynamic_batching(
        preferred_batch_size=[2, 8],
        max_queue_delay_microseconds=100,
        priority_levels=2,
        default_priority_level=1,
        default_queue_policy={"timeout_action": "DELAY", "default_timeout_microseconds": 10**6, "max_queue_size": 64},
        priority_queue_policy={2: {"timeout_action": "REJECT", "allow_timeout_override": True}},
    )
    config.set_version_policy(num_versions=2)
    config.add_model_warmup(
        "rows", {"x": {"data_type": "TYPE_FP32", "dims": [4], "random_data": True}}, batch_size=8, count=2
    )
    config.add_instance_group(
        kind="cpu",
        host_policy="cpu_0",
        rate_limiter={"resources": [{"name": "R", "count": 1, "global": True}], "priority": 2},
    )
    config.set_response_cache()
    config.set_optimization(
        graph_level=1,
        priority="PRIORITY_MAX",
        cuda={"graphs": True, "graph_spec": [{"batch_size": 1, "input": {"x": {"dim": [4]}}}]},
        gpu_execution_accelerator=[{"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}],
        input_pinned_memory=False,
        output_pinned_memory=True,
        gather_kernel_buffer_threshold=8,
        eager_batching=True,
    )
    config.set_parameters({"intra_op_thread_count": 1, "enable_mem_arena": 0})
    config.set_metric_tags({"team": "detector"})
    config.batch_input.add(kind=0, target_name=["count"], data_type=11, source_input=["x"])
    batched.export_version(affine())
    other = repo.add("by-sequence")
    other.export_version(affine(), max_batch_size=4)
    other.config.set_sequence_batching(
        oldest={"max_candidate_sequences": 4, "preferred_batch_size": [4], "max_queue_delay_microseconds": 100},
        max_sequence_idle_microseconds=10**6,
    )
    other.config.set_model_transaction_policy(decoupled=False)
    other.config.add_instance_group(kind="cpu")
    with EmbeddedTriton(Path(config.where).parents[1], extra_flags=["--cache-config=local,size=1048576"]) as server:
        assert {status.state for status in server.control.index()} == {"READY"}
        with InferenceServerClient(server.http_address) as client:
            served = client.get_model_config("my-model")
    assert int(served["dynamic_batching"]["priority_levels"]) == 2
    assert served["optimization"]["graph"]["level"] == 1
