"""The names of members on a server, and configs that use them."""

import pytest

from gravswell.names import MEMBER_PREFIX
from gravswell.quiver.config import parse_config
from gravswell.serving.members import as_member, member_keys, member_name, renamed

A, B = "a" * 64, "b" * 64

ENSEMBLE = parse_config("""
platform: "ensemble"
ensemble_scheduling {
  step { model_name: "clean" model_version: 3 input_map { key: "x" value: "x" } output_map { key: "y" value: "t" } }
  step { model_name: "clean" model_version: 4 input_map { key: "x" value: "t" } output_map { key: "y" value: "u" } }
  step { model_name: "other" model_version: -1 input_map { key: "x" value: "u" } output_map { key: "y" value: "z" } }
}
""")

BUSINESS = parse_config("""
backend: "python"
parameters { key: "gravswell.access" value { string_value: "private" } }
parameters { key: "gravswell.member.first" value { string_value: "clean:3" } }
parameters { key: "gravswell.member.second" value { string_value: "with:colon:4" } }
""")


def test_a_name_is_of_the_version_and_of_the_server() -> None:
    name = member_name("clean", A, "key")
    assert name.startswith(f"{MEMBER_PREFIX}clean-")
    assert name == member_name("clean", A, "key"), "pipelines share it"
    others = {member_name("clean", B, "key"), member_name("clean", A, "other"), member_name("clean", A)}
    assert len(others | {name}) == 4


@pytest.mark.parametrize("entry", ["my model", "größe", "a;b", "bad\udcff", "x" * 200])
def test_whatever_an_entry_is_called_a_server_can_load_its_member(entry: str) -> None:
    name = member_name(entry, A)
    assert name.removeprefix(MEMBER_PREFIX).replace("_", "").replace("-", "").isalnum()
    assert name.isascii()
    assert len(name) <= 255


def test_steps_are_renamed_by_entry_and_version_and_keep_their_numbers() -> None:
    assert member_keys(ENSEMBLE) == [("clean", 3), ("clean", 4), ("other", -1)]
    made = renamed(ENSEMBLE, {("clean", 3): "m3", ("clean", 4): "m4"})
    steps = [(step.model_name, step.model_version) for step in made.ensemble_scheduling.step]
    assert steps == [("m3", 3), ("m4", 4), ("other", -1)]
    assert ENSEMBLE.ensemble_scheduling.step[0].model_name == "clean", "a copy"


def test_parameters_are_renamed_and_others_stay() -> None:
    made = renamed(BUSINESS, {("clean", 3): "m3", ("with:colon", 4): "m4"})
    assert {key: value.string_value for key, value in made.parameters.items()} == {
        "gravswell.access": "private",
        "gravswell.member.first": "m3:3",
        "gravswell.member.second": "m4:4",
    }


def test_a_member_is_loaded_in_its_version_alone() -> None:
    config = parse_config('name: "clean" version_policy { latest { num_versions: 2 } } max_batch_size: 8')
    made = as_member(config, "m3", 3)
    expected = 'name: "m3" version_policy { specific { versions: [ 3 ] } } max_batch_size: 8'
    assert made == parse_config(expected)
