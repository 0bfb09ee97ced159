"""A provider of others, as its documentation has it: installed beside the operator, with nodes that join."""

from typing import Any

from ...providers.rack import RackServer
from ..operating import conditions, wait_until
from .conftest import Pools


def apply(pools: Pools, name: str, size: int, provider: str = "rack", **parameters: str) -> dict[str, Any]:
    spec = {
        "provider": {"type": "Custom", "custom": {"name": provider, "parameters": parameters}},
        "accelerator": {"type": "a100", "count": 8},
        "size": size,
    }
    pools.names.add(name)
    kind = {"apiVersion": "gravswell.dev/v1alpha1", "kind": "GPUNodePool"}
    pools.api.apply("", {**kind, "metadata": {"name": name}, "spec": spec})
    return pools.get(name)


def test_made_scaled_blocked_and_deleted(pools: Pools, rack: RackServer) -> None:
    uid = apply(pools, "racked", 1, address=rack.address)["metadata"]["uid"]
    body = pools.until("racked", Ready="NodesReady", Provisioned="ProviderReady", nodes=1, allocatableGPUs=8)
    assert body["metadata"]["finalizers"] == ["gravswell.dev/cloud"]
    assert body["status"]["cloud"]["resource"] == f"{rack.address}/pools/{uid}"
    assert conditions(body)["Provisioned"]["message"] == "rack keeps 1 node"
    apply(pools, "racked", 2, address=rack.address)
    pools.until("racked", Ready="NodesReady", nodes=2)
    apply(pools, "racked", 9, address=rack.address)
    message = conditions(pools.until("racked", Ready="OutOfStock", nodes=2))["Ready"]["message"]
    assert message == "rack: 4 machines are all there are"
    pools.delete("racked")
    pools.until_gone("racked")
    wait_until(lambda: not pools.api.list("node", "", "gravswell.dev/pool=racked"))
    assert not rack.groups


def test_a_provider_that_nobody_installed_is_told_and_holds_no_pool(pools: Pools) -> None:
    apply(pools, "shelved", 1, provider="shelf")
    body = pools.until("shelved", Ready="ProviderMissing", Provisioned="ProviderMissing")
    assert "no provider shelf is installed in the operator (installed: rack)" in conditions(body)["Ready"]["message"]
    pools.delete("shelved")
    pools.until_gone("shelved")
