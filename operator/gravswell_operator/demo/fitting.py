"""What of ``examples/`` a cluster of the user's can run: all of it, or all but the GPUs. Pure."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gravswell_operator import providers, state
from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.manifest import parse
from gravswell_operator.names import selector_text
from gravswell_operator.statuses import pool as statuses


@dataclass(frozen=True)
class Fitted:
    """Manifests that a cluster can run."""

    manifests: list[dict[str, Any]]
    without: str = ""
    """Which GPUs the cluster lacks, and what that takes from ``examples/``; empty where nothing is left out."""


def fitted(manifests: Iterable[Mapping[str, Any]], nodes: Iterable[Mapping[str, Any]]) -> Fitted:
    """``manifests`` as they are where every pool would be Ready on ``nodes``; else no pool, and servers without GPUs.

    ``nodes`` are the cluster's, as the API server shows them. A pool that would be Ready is the operator's own verdict.
    Nodes with other GPUs are left alone: whether those are free, a demo cannot know, and its model needs none.
    """
    kept = [copy.deepcopy(dict(manifest)) for manifest in manifests]
    states = [state.node(node) for node in nodes]
    pools = [pool for pool in map(parse, kept) if isinstance(pool, GPUNodePool)]
    lacking = [pool for pool in pools if not _ready(pool, states)]
    if not lacking:
        return Fitted(kept)
    kept = [manifest for manifest in kept if manifest["kind"] != "GPUNodePool"]
    for manifest in kept:
        if manifest["kind"] == "InferenceServer":
            manifest["spec"].pop("nodePoolRef", None)
            manifest["spec"]["gpus"] = 0
    left_out = f"GPUNodePool {lacking[0].metadata.name} is left out and the server has gpus: 0, which is the CPU"
    return Fitted(kept, f"{_lack(lacking[0])}, so {left_out}")


def _ready(pool: GPUNodePool, nodes: list[state.NodeState]) -> bool:
    found = statuses.findings(statuses.PoolView(pool, providers.nodes_of(pool, nodes)))
    return all(finding.status is True for finding in found)


def _lack(pool: GPUNodePool) -> str:
    """What no node, or too few, is."""
    spec = pool.spec
    assert spec.provider.static is not None, "the examples' nodes exist already"
    labels = selector_text(dict(spec.provider.static.match_labels))
    return f"no ready node has {labels} and {spec.accelerator.count} {spec.accelerator.resource_name}"
