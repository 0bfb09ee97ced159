"""What the demo, and the README's reader, make of ``examples/`` for a cluster of one's own."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from gravswell_operator.api.manifest import parse
from gravswell_operator.demo.fitting import fitted
from gravswell_operator.demo.objects import examples

README = Path(__file__).resolve().parents[2] / "README.md"
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


def test_the_readme_names_what_there_is_to_edit_on_a_cluster_of_ones_own() -> None:
    section = re.search(r"^## On Kubernetes\n(.*?)\n```\n(.*?)\n\|", README.read_text(), re.M | re.S)
    assert section is not None
    commands, below = section.groups()
    assert commands.index("not published yet") < commands.index("helm install"), "said too late"
    assert "--set image.repository=" in commands
    assert re.findall(r"EDITOR examples/(\w+)", commands) == ["modelrepository", "gpunodepool"]
    for words in ("`gpunodepool.yaml` out", "`nodePoolRef` away", "`gpus: 0`"):
        assert words in below
