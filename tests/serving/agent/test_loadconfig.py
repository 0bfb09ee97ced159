"""The config that Triton gets at load."""

import json

import pytest

from gravswell.quiver.config import config_to_json, parse_config
from gravswell.serving.agent.loadconfig import (
    Loaded,
    for_member,
    for_proof,
    for_traffic,
    load_key,
    read_loaded,
)
from gravswell.serving.contracts import DesiredModel

MODEL = DesiredModel(name="m", version=3, digest="a" * 64)
PUBLISHED = """
name: "elsewhere" platform: "onnxruntime_onnx" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
version_policy { latest { num_versions: 3 } }
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }, { count: 1 kind: KIND_CPU } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
response_cache { enable: true }
model_warmup { name: "w" batch_size: 1 }
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
"""
ENSEMBLE = """
name: "m" platform: "ensemble" max_batch_size: 8
ensemble_scheduling { step { model_name: "a" model_version: -1 } }
"""


def traffic(text: str = PUBLISHED, **more: object) -> dict[str, object]:
    cpu_only = bool(more.pop("cpu_only", False))
    again = str(more.pop("again", ""))
    model = MODEL.model_copy(update=more)
    found: dict[str, object] = json.loads(for_traffic(parse_config(text), model, cpu_only=cpu_only, again=again))
    return found


def test_exactly_the_desired_version_is_served_under_the_entry_s_name():
    config = traffic()
    assert config["name"] == "m"
    assert config["version_policy"] == {"specific": {"versions": ["3"]}}
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": "100"}
    assert config["parameters"]["intra_op_thread_count"] == {"string_value": "2"}


def test_what_is_loaded_can_be_read_back():
    loaded = Loaded(3, "a" * 64, load_key(MODEL, cpu_only=True))
    assert read_loaded(3, traffic(cpu_only=True)) == loaded
    assert read_loaded(3, traffic(cpu_only=True, again="7")) == loaded
    assert read_loaded(3, traffic(digest=None)).digest is None
    assert read_loaded(5, {"name": "m"}) == Loaded(5, None, None)


def test_loading_again_is_another_config_to_triton():
    assert traffic(again="7") != traffic(again="8") != traffic()


@pytest.mark.parametrize(
    ("more", "groups"),
    [
        ({}, [("KIND_GPU", 2, [0, 1]), ("KIND_CPU", 1, None)]),
        ({"instances": 4}, [("KIND_GPU", 4, [0, 1]), ("KIND_CPU", 4, None)]),
        ({"cpu_only": True}, [("KIND_CPU", 2, None), ("KIND_CPU", 1, None)]),
        ({"cpu_only": True, "instances": 3}, [("KIND_CPU", 3, None), ("KIND_CPU", 3, None)]),
        ({"gpus": (2, 3)}, [("KIND_GPU", 2, [2, 3]), ("KIND_CPU", 1, None)]),
        ({"gpus": (2, 3), "instances": 1}, [("KIND_GPU", 1, [2, 3]), ("KIND_CPU", 1, None)]),
        ({"gpus": (2, 3), "cpu_only": True}, [("KIND_CPU", 2, None), ("KIND_CPU", 1, None)]),
    ],
)
def test_instances_and_devices(more, groups):
    found = traffic(**more)["instance_group"]
    assert [(group["kind"], group["count"], group.get("gpus")) for group in found] == groups


def test_without_a_group_one_is_said_where_the_count_must_be():
    bare = 'name: "m" platform: "onnxruntime_onnx"'
    assert "instance_group" not in traffic(bare)
    assert traffic(bare, cpu_only=True)["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]
    assert traffic(bare, instances=2)["instance_group"] == [{"count": 2}]
    assert traffic(bare, gpus=(1,))["instance_group"] == [{"count": 1, "gpus": [1], "kind": "KIND_GPU"}]


def test_an_ensemble_gets_no_instances():
    assert "instance_group" not in traffic(ENSEMBLE, instances=2, cpu_only=True)
    assert "instance_group" not in json.loads(for_proof(parse_config(ENSEMBLE), "p", 1, cpu_only=True))


def test_a_proof_asks_one_instance_and_nothing_that_waits():
    config = json.loads(for_proof(parse_config(PUBLISHED), "private", 3, cpu_only=False))
    assert config["name"] == "private"
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_GPU", "gpus": [0]}]
    assert not {"dynamic_batching", "response_cache", "model_warmup"} & config.keys()
    assert config["max_batch_size"] == 8
    assert config["version_policy"] == {"specific": {"versions": ["3"]}}


def test_a_proof_runs_on_a_device_of_the_model_s_own():
    config = json.loads(for_proof(parse_config(PUBLISHED), "private", 3, cpu_only=False, gpus=(2, 3)))
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_GPU", "gpus": [2]}]
    on_cpu = json.loads(for_proof(parse_config(PUBLISHED), "private", 3, cpu_only=True, gpus=(2, 3)))
    assert on_cpu["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]


def test_the_key_tells_loads_apart():
    changes = ({}, {"version": 4}, {"digest": None}, {"instances": 1}, {"name": "n"}, {"gpus": (0,)}, {"gpus": (1,)})
    keys = {load_key(MODEL.model_copy(update=change), cpu_only=cpu) for change in changes for cpu in (True, False)}
    assert len(keys) == 14
    assert load_key(MODEL, cpu_only=False) == "55a5b3717ed13f0e", "another one would reload every model with an upgrade"


def test_a_member_keeps_what_it_was_published_with_but_for_its_name_and_place():
    name = "gravswell-member-m-0"
    config = for_member(parse_config(PUBLISHED), name, MODEL, cpu_only=True)
    assert (config.name, list(config.version_policy.specific.versions)) == (name, [3])
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, 2), (1, 2)]
    assert read_loaded(3, json.loads(config_to_json(config))) == Loaded(3, "a" * 64, load_key(MODEL, cpu_only=True))
    placed = for_member(parse_config(PUBLISHED), name, MODEL.model_copy(update={"gpus": (2, 3)}), cpu_only=False)
    assert [list(group.gpus) for group in placed.instance_group if group.kind == 1] == [[2, 3]]
    again = for_member(parse_config(PUBLISHED), name, MODEL, cpu_only=True, again="1")
    assert again != config, "Triton loads it anew only for another text"


@pytest.mark.parametrize(
    "text",
    [
        ENSEMBLE.replace('"a"', '"gravswell-member-a-0"'),
        'parameters { key: "gravswell.member.it" value { string_value: "gravswell-member-a-0:7" } } backend: "python"',
    ],
    ids=["ensemble", "Python"],
)
def test_what_is_loaded_says_which_members_it_calls(text: str):
    assert read_loaded(3, traffic(text)).members == ("gravswell-member-a-0",)
    assert read_loaded(3, traffic(ENSEMBLE)).members == (), "others' ensembles call what is served beside them"
