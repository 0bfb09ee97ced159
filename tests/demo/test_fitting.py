"""What the demo makes of ``examples/`` for a cluster of the user's."""

import copy
from typing import Any

import pytest

from gravswell_operator.api.manifest import parse
from gravswell_operator.demo.fitting import fitted
from gravswell_operator.demo.objects import examples

LABEL = {"nvidia.com/gpu.product": "Simulated-GPU"}


def node(*, gpus: str | None, labels: dict[str, str], ready: bool = True, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "node", "labels": labels},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "4"} | ({"nvidia.com/gpu": gpus} if gpus is not None else {}),
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
        },
    }


GOOD = node(gpus="8", labels=LABEL)


@pytest.mark.parametrize("nodes", [[GOOD], [node(gpus=None, labels={}), GOOD]])
def test_with_the_pools_nodes_the_examples_stand_as_they_are(nodes: list[dict[str, Any]]) -> None:
    fit = fitted(examples(), nodes)
    assert fit.manifests == examples()
    assert not fit.without


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [node(gpus=None, labels={})],
        [node(gpus="0", labels=LABEL)],
        [node(gpus=None, labels=LABEL)],
        [node(gpus="4", labels=LABEL)],
        [node(gpus="8", labels={"nvidia.com/gpu.product": "NVIDIA-L4"})],
        [node(gpus="8", labels=LABEL, ready=False)],
        [node(gpus="8", labels=LABEL, unschedulable=True)],
    ],
    ids=["none", "plain", "label and no GPU", "kind's", "too few GPUs", "another product", "not ready", "cordoned"],
)
def test_without_them_there_is_no_pool_and_the_server_needs_none(nodes: list[dict[str, Any]]) -> None:
    fit = fitted(examples(), nodes)
    kinds = {manifest["kind"]: parse(manifest) for manifest in fit.manifests}
    assert sorted(kinds) == ["InferenceServer", "Model", "ModelRepository"]
    assert kinds["InferenceServer"].spec.node_pool_ref is None
    assert kinds["InferenceServer"].spec.gpus == 0
    for words in ("nvidia.com/gpu.product=Simulated-GPU and 8 nvidia.com/gpu", "GPUNodePool simulated is left out"):
        assert words in fit.without


def test_what_was_given_is_not_changed() -> None:
    given = examples()
    before = copy.deepcopy(given)
    fitted(given, [])
    assert given == before
