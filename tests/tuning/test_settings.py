"""A setting in Triton's configuration: as it is measured, and as it is written."""

import pytest
from google.protobuf import text_format

from gravswell.errors import InvalidInputError
from gravswell.quiver.config import parse_config
from gravswell.tuning.settings import measured_config, promises, require_tunable, settings_told, tuned
from gravswell.tuning.space import Setting

BASE = 'name: "m" platform: "onnxruntime_onnx" max_batch_size: 8 '
RICH = (
    BASE + "instance_group { count: 3 kind: KIND_CPU } response_cache { enable: true } "
    "dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 7 } parameters { key: 'k' value { "
    "string_value: 'v' } } version_policy { latest { num_versions: 2 } }"
)
BATCHED, ALONE = Setting(2, 500), Setting(2, None)


def test_what_is_measured_is_one_version_on_the_cpu_without_a_cache() -> None:
    made = measured_config(parse_config(RICH), [5], BATCHED)
    assert text_format.MessageToString(made, as_one_line=True) == text_format.MessageToString(
        parse_config(
            BASE + "version_policy { specific { versions: 5 } } instance_group { count: 2 kind: KIND_CPU } "
            "dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 500 } "
            "parameters { key: 'k' value { string_value: 'v' } }"
        ),
        as_one_line=True,
    )
    assert not measured_config(parse_config(RICH), [5], ALONE).HasField("dynamic_batching")


def test_only_what_was_tuned_is_written() -> None:
    before = parse_config(RICH)
    after, changes, notes = tuned(before, BATCHED)
    expected = parse_config(RICH)
    expected.instance_group[0].count = 2
    expected.dynamic_batching.max_queue_delay_microseconds = 500
    assert after == expected
    assert before == parse_config(RICH)
    assert changes == [
        "instance_group count: 2 (was 3)",
        "dynamic_batching: on, waits 500 µs (was on, waits 7 µs)",
    ]
    assert notes == ["2 instances is a count for CPUs, where it was measured"]


def test_the_best_is_there_already() -> None:
    config, _, _ = tuned(parse_config(RICH), BATCHED)
    again, changes, _ = tuned(config, BATCHED)
    assert (again, changes) == (config, [])


@pytest.mark.parametrize(
    ("group", "written", "note"),
    [
        ("", "instance_group { count: 2 kind: KIND_AUTO }", "a count for CPUs"),
        ("instance_group { kind: KIND_AUTO }", "instance_group { count: 2 kind: KIND_AUTO }", "a count for CPUs"),
        ("instance_group { count: 4 gpus: 1 }", "instance_group { count: 4 gpus: 1 }", "asks for GPUs"),
        ("instance_group { count: 4 kind: KIND_GPU }", "instance_group { count: 4 kind: KIND_GPU }", "asks for GPUs"),
        (
            "instance_group { kind: KIND_GPU } dynamic_batching { }",
            "instance_group { kind: KIND_GPU } dynamic_batching { }",
            "on this CPU (2 instances, batching off) says nothing of them",
        ),
        ("instance_group { count: 4 kind: KIND_MODEL }", "instance_group { count: 4 kind: KIND_MODEL }", "KIND_MODEL"),
    ],
)
def test_a_count_of_cpus_is_not_written_for_gpus(group: str, written: str, note: str) -> None:
    after, _, notes = tuned(parse_config(BASE + group), ALONE)
    assert after == parse_config(BASE + written)
    assert note in notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parameters { key: 'gravswell.member.f' value { string_value: 'a:3' } }", "m is Python that calls a, .* tune"),
        ("sequence_batching { }", "batches sequences"),
        ("instance_group { count: 1 } instance_group { count: 2 }", "2 instance groups"),
    ],
)
def test_what_has_not_one_number_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        require_tunable(parse_config('name: "m" ' + text))


def test_what_clients_rely_on() -> None:
    assert promises(parse_config(RICH)) == []
    text = BASE + "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }"
    assert promises(parse_config(text)) == ["preserve_ordering", "priority_levels", "default_priority_level"]


def test_of_an_ensemble_its_steps_stay_as_they_are() -> None:
    text = 'name: "e" platform: "ensemble" ensemble_scheduling { step { model_name: "a" model_version: 2 } } '
    made = measured_config(parse_config(text + "response_cache { enable: true }"), [1], None)
    assert made == parse_config(text + "version_policy { specific { versions: 1 } }")


def test_settings_in_words() -> None:
    assert settings_told([("a", ALONE)]) == "2 instances, batching off"
    assert (
        settings_told([("a", Setting(1, 0)), ("b", ALONE)]) == "a 1 instance, batching on; b 2 instances, batching off"
    )
