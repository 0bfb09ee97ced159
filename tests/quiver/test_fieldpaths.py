"""Fields by their paths: what a value means, and what clearing leaves."""

import pytest

from gravswell.errors import InvalidInputError
from gravswell.quiver.config import format_config, parse_config
from gravswell.quiver.fieldpaths import set_field

GROUPS = "instance_group { count: 1 gpus: 0 gpus: 1 } instance_group { count: 2 } "


@pytest.mark.parametrize(
    ("path", "text", "made"),
    [
        ("platform", "two words", 'platform: "two words"'),
        ("platform", "it's \"so\" \\ and", 'platform: "it\'s \\"so\\" \\\\ and"'),
        ("platform", '" padded "', 'platform: " padded "'),
        ("platform", "été\t日", 'platform: "été\\t日"'),
        ("parameters[a].string_value", "{b: [1]}", 'parameters { key: "a" value { string_value: "{b: [1]}" } }'),
        ("parameters[a].string_value", "[1, 2]", 'parameters { key: "a" value { string_value: "[1, 2]" } }'),
        ('metric_tags["a.b"]', "x=y", 'metric_tags { key: "a.b" value: "x=y" }'),
        ("metric_tags[a]", "1, 2", 'metric_tags { key: "a" value: "1, 2" }'),
        ("max_batch_size", "8 # rows", "max_batch_size: 8"),
        ("response_cache.enable", "true", "response_cache { enable: true }"),
        ("instance_group[0].kind", "KIND_CPU", "instance_group { kind: KIND_CPU }"),
        ("instance_group[0].profile", "a b, 1", 'instance_group { profile: "a b" profile: "1" }'),
        ("instance_group", "[{count: 1}, {count: 2}]", "instance_group { count: 1 } instance_group { count: 2 }"),
        ("instance_group[0]", "{count: 3}", "instance_group { count: 3 }"),
        ("input[0].dims", "-1, 64", "input { dims: -1 dims: 64 }"),
        ("dynamic_batching", "{}", "dynamic_batching { }"),
        ("dynamic_batching.priority_queue_policy[2].max_queue_size", "3",
         "dynamic_batching { priority_queue_policy { key: 2 value { max_queue_size: 3 } } }"),
    ],
)  # fmt: skip
def test_a_value(path: str, text: str, made: str) -> None:
    config = parse_config("")
    set_field(config, path, text)
    assert config == parse_config(made), format_config(config)


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("", "dynamic_batching.max_queue_delay_microseconds", ""),
        ("", "optimization.cuda.graphs", ""),
        ("", "instance_group[0].gpus", ""),
        ("", "parameters[a].string_value", ""),
        ("", "metric_tags[a]", ""),
        ("", "dynamic_batching.priority_queue_policy[1].max_queue_size", ""),
        ("dynamic_batching { max_queue_delay_microseconds: 1 }", "dynamic_batching.max_queue_delay_microseconds",
         "dynamic_batching { }"),
        (GROUPS, "instance_group[0]", "instance_group { count: 2 }"),
        (GROUPS, "instance_group[0].gpus", "instance_group { count: 1 } instance_group { count: 2 }"),
        (GROUPS, "instance_group[0].gpus[0]", GROUPS.replace("gpus: 0 ", "")),
        (GROUPS, "instance_group[2].count", GROUPS),
        (GROUPS, "instance_group", ""),
    ],
)  # fmt: skip
def test_clearing_makes_nothing(before: str, path: str, after: str) -> None:
    """An empty dynamic_batching would be one that is switched on."""
    config = parse_config(before)
    set_field(config, path, "")
    assert config == parse_config(after), format_config(config)


@pytest.mark.parametrize(
    ("path", "text", "fact"),
    [
        ("input[0].dims[0]", "1, 2", r"is one of dims, and '1, 2' are 2: leave \[0\] out"),
        ("input[0].dims[0]", "[]", "are 0"),
        ("max_batch_size", "3 platform: 'x'", "takes a whole number"),
        ("optimization.cuda.graph", "", "has no field 'graph'"),
        ("instance_group[3].count", "", "there are 0"),
        ("response_cache.enable", "yes", "takes true or false"),
    ],
)
def test_what_is_no_value(path: str, text: str, fact: str) -> None:
    with pytest.raises(InvalidInputError, match=fact):
        set_field(parse_config(""), path, text)
