import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gravswell.errors import InvalidInputError
from gravswell.quiver.config import (
    ConfigText,
    ModelConfig,
    config_to_json,
    format_config,
    parse_config,
    unknown_fields,
)

BY_HAND = """\
# the detector, do not touch
name: "m" # ours
platform: 'onnxruntime_onnx'
input [
  { name: "x" data_type: TYPE_FP32 dims: [ -1, 64 ] },   # strain
  { name: "z" data_type: TYPE_FP32 dims: 4 }
]
future_thing { a: 1, b: "x" "y" nested < c: -3 > }
optimization { cuda { graphs: true } shiny: -3 }
parameters { key: "a" value: { string_value: "b } # no comment" } };
default_model_filename: "mod"
  "el.onnx"
# the end
"""

_names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@st.composite
def configs(draw: st.DrawFn) -> Any:
    config = ModelConfig(name=draw(_names), platform="onnxruntime_onnx", max_batch_size=draw(st.integers(0, 99)))
    for side in (config.input, config.output):
        for _ in range(draw(st.integers(0, 3))):
            dims = draw(st.lists(st.integers(-1, 2**40), max_size=4))
            side.add(name=draw(_names), data_type=draw(st.integers(1, 14)), dims=dims)
    for _ in range(draw(st.integers(0, 2))):
        config.instance_group.add(count=draw(st.integers(1, 9)), kind=draw(st.integers(0, 3)))
    for key, value in draw(st.dictionaries(_names, _names, max_size=3)).items():
        config.parameters[key].string_value = value
    if draw(st.booleans()):
        config.dynamic_batching.max_queue_delay_microseconds = draw(st.integers(0, 2**63))
        config.dynamic_batching.preferred_batch_size.extend(draw(st.lists(st.integers(1, 64), max_size=3)))
    if draw(st.booleans()):
        config.version_policy.latest.num_versions = draw(st.integers(1, 5))
    return config


@given(configs())
def test_text_round_trip(config: Any) -> None:
    text = ConfigText.from_message(config)
    assert text.message == config
    assert text.render() == format_config(config)
    assert parse_config(text.render()) == config


@given(configs(), configs())
@settings(max_examples=60)
def test_any_edit_is_rendered(before: Any, after: Any) -> None:
    text = ConfigText.from_message(before)
    text.message.CopyFrom(after)
    assert parse_config(text.render()) == after


def test_untouched_text_stays_byte_for_byte() -> None:
    assert ConfigText(BY_HAND).render() == BY_HAND


def test_an_edit_changes_only_its_field() -> None:
    text = ConfigText(BY_HAND)
    text.message.instance_group.add(count=4, kind=1)
    assert text.render() == BY_HAND.replace(
        "# the end\n", "instance_group {\n  count: 4\n  kind: KIND_GPU\n}\n# the end\n"
    )
    text = ConfigText(BY_HAND)
    text.message.parameters["a"].string_value = "new"
    rendered = text.render()
    assert "# strain" in rendered
    assert "future_thing { a: 1" in rendered
    assert parse_config(rendered).parameters["a"].string_value == "new"


def test_an_edited_field_keeps_its_comments() -> None:
    groups = "# for the T4s\ninstance_group { # first\n  count: 4 }\n\n# spare\ninstance_group { name: '#' }  # last\n"
    text = ConfigText('name: "m"\n' + groups + "# the end\n")
    text.message.instance_group[0].count = 2
    made = 'instance_group {\n  count: 2\n}\ninstance_group {\n  name: "#"\n}\n'
    assert text.render() == f'name: "m"\n# for the T4s\n# first\n# spare\n# last\n{made}# the end\n'


def test_a_cleared_field_goes_with_all_its_parts() -> None:
    text = ConfigText(BY_HAND)
    del text.message.input[:]
    assert "input" not in text.render()


def test_what_is_unknown_is_named_and_never_lost() -> None:
    assert unknown_fields(BY_HAND) == ["future_thing", "optimization"]
    text = ConfigText(BY_HAND)
    text.message.optimization.cuda.graphs = False
    with pytest.raises(InvalidInputError, match=r"optimization .*edit the file by hand"):
        text.render()


@pytest.mark.parametrize(
    "text",
    [
        "name:",
        'name: "x',
        "input {",
        "input }",
        "input [ { } >",
        '"x"',
        "max_batch_size: many",
        "input { data_type: TYPE_NEW }",
        "{}",
        ": 3",
        "name \0",
        '{"name": "json"}',
    ],
)
def test_broken_text_is_a_clear_error(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"r/m/config\.pbtxt"):
        ConfigText(text, where="r/m/config.pbtxt")


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parsed = ConfigText(text)
    except InvalidInputError:
        return
    assert parse_config(parsed.render()) == parsed.message


def test_json_keeps_triton_s_names() -> None:
    config = parse_config('name: "m" max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: -1 }')
    assert json.loads(config_to_json(config)) == {
        "name": "m",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1"]}],
    }
