"""A provider of others, as its documentation has it: installed beside the operator, with nodes that join."""

import time
from pathlib import Path
from typing import Any

from gravswell_operator.cluster.lease import LEASE_NAME, RENEW_SECONDS

from ...providers.rack import RackServer
from ..operating import OperatorProcess, conditions, wait_until
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


def test_one_that_blocks_for_longer_than_a_lease_may_wait_costs_nobody_else_anything(
    pools: Pools, rack: RackServer, operator: OperatorProcess, tmp_path: Path
) -> None:
    begun = len(operator.log.read_text())
    lease = pools.api.get("lease", "kube-system", LEASE_NAME)
    assert lease is not None
    goes_on = tmp_path / "goes-on"
    apply(pools, "stuck", 1, provider="stuck", address=rack.address, until=str(goes_on))
    wait_until(lambda: "the provider stuck blocks" in operator.log.read_text()[begun:])
    apply(pools, "racked", 1, address=rack.address)
    pools.until("racked", Ready="NodesReady", nodes=1)
    time.sleep(RENEW_SECONDS)
    goes_on.touch()
    pools.until("stuck", Ready="NodesReady", nodes=1)
    told = operator.log.read_text()[begun:]
    assert told.count("the provider stuck blocks") == 1
    assert "stuck.py" in told
    assert "cannot renew the lease" not in told
    held = pools.api.get("lease", "kube-system", LEASE_NAME)
    assert held is not None
    assert held["spec"]["holderIdentity"] == lease["spec"]["holderIdentity"]


def test_a_provider_that_nobody_installed_is_told_and_holds_no_pool(pools: Pools) -> None:
    apply(pools, "shelved", 1, provider="shelf")
    body = pools.until("shelved", Ready="ProviderMissing", Provisioned="ProviderMissing")
    assert (
        "no provider shelf is installed in the operator (installed: rack, stuck)"
        in conditions(body)["Ready"]["message"]
    )
    pools.delete("shelved")
    pools.until_gone("shelved")
