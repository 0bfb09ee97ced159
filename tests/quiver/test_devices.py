"""A configuration on given devices."""

import pytest

from gravswell.quiver.config import parse_config
from gravswell.quiver.devices import on_devices

GPU = "KIND_GPU"


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("", [(GPU, 1, [2, 3])]),
        ("{ count: 2 }", [(GPU, 2, [2, 3])]),
        ("{ kind: KIND_GPU }", [(GPU, 1, [2, 3])]),
        ("{ count: 2 kind: KIND_GPU gpus: [ 0 ] }", [(GPU, 2, [2, 3])]),
        # Two for the sake of their devices are one; two that differ otherwise stay two.
        ("{ count: 2 kind: KIND_GPU gpus: [ 0 ] }, { count: 1 gpus: [ 1 ] name: 'b' }", [(GPU, 2, [2, 3])]),
        (
            "{ count: 1 kind: KIND_GPU profile: '0' }, { count: 1 kind: KIND_GPU profile: '1' }",
            [(GPU, 1, [2, 3]), (GPU, 1, [2, 3])],
        ),
        (
            "{ count: 2 kind: KIND_GPU }, { count: 3 kind: KIND_CPU }, { kind: KIND_MODEL }",
            [(GPU, 2, [2, 3]), ("KIND_CPU", 3, []), ("KIND_MODEL", 0, [])],
        ),
    ],
)
def test_what_runs_on_gpus_runs_on_these(groups, expected):
    config = parse_config(f"instance_group [ {groups} ]")
    on_devices(config, [2, 3])
    kinds = config.instance_group[0].Kind
    assert [(kinds.Name(g.kind), g.count, list(g.gpus)) for g in config.instance_group] == expected


def test_an_ensemble_stays_as_it_is():
    config = parse_config('platform: "ensemble"')
    on_devices(config, [0])
    assert not config.instance_group
