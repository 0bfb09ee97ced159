"""An upgrade from an earlier chart with objects in place, by the real helm, on the development cluster.

``earlier/`` has the chart of the first release that served models (commit d1abc46), and what its operator had made and
said of four objects. It does not run here, for its program is not this one: what it left is put there in its name.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from gravswell import quiver as qv
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell_operator import names
from gravswell_operator.api import KINDS
from gravswell_operator.api.crd import crds
from gravswell_operator.cluster import resources
from gravswell_operator.devcluster import DevCluster

from ..control_plane.operating import wait_until
from ..serving.agent.versions import scaling_graph
from .conftest import CHART
from .installing import RELEASE, SYSTEM, cluster, operator_log, run

__all__ = ["cluster", "run"]

EARLIER = Path(__file__).parent / "earlier"
WAIT_SECONDS = 180
RECORDED_URL, RECORDED_DIGEST = "file:///models", "d" * 64
OURS = "isrv/digits,mr/models,mdl/digits"
MADE = "app.kubernetes.io/managed-by=gravswell"
KINDS_MADE = "deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,daemonsets"

Body = dict[str, Any]


def recorded(folder: Path) -> list[Body]:
    """What there was, of a repository with one version, which is published in ``folder``."""
    entry = qv.ModelRepository(str(folder)).add("digits", platform=qv.Platform.ONNX)
    entry.export_version(onnx.load_from_string(scaling_graph(2.0)))
    text = (EARLIER / "objects.yaml").read_text()
    text = text.replace(RECORDED_DIGEST, str(entry.versions[0].digest)).replace(RECORDED_URL, folder.as_uri())
    return list(yaml.safe_load_all(text))


async def put(cluster: DevCluster, objects: list[Body]) -> None:
    """Our kinds as a user applies them; their status, and what belongs to them, as the operator did."""
    kinds = {kind.NAMES.kind for kind in KINDS}
    account = await credentials.from_kubeconfig(cluster.kubeconfig)
    uids = {}
    async with Client(account, name="user") as user, Client(account, name=names.FIELD_MANAGER) as operator:
        for body in objects:
            resource, status = resources.of(body), body.pop("status", None)
            if body["kind"] in kinds:
                made = await user.apply(resource, body)
                uids[body["kind"], body["metadata"]["name"]] = made["metadata"]["uid"]
                said = {key: value for key, value in body.items() if key != "spec"} | {"status": status}
                await operator.apply_status(resource, said)
        for body in objects:
            if body["kind"] not in kinds:
                (owner,) = body["metadata"]["ownerReferences"]
                owner["uid"] = uids[owner["kind"], owner["name"]]
                await operator.apply(resources.of(body), body)


def listed(cluster: DevCluster, *arguments: str) -> dict[tuple[str, str], Body]:
    """Objects by kind and name."""
    items = json.loads(cluster.kubectl("get", *arguments, "-A", "-o", "json"))["items"]
    return {(item["kind"], item["metadata"]["name"]): item for item in items}


def uids(found: dict[tuple[str, str], Body]) -> dict[tuple[str, str], str]:
    return {key: body["metadata"]["uid"] for key, body in found.items()}


def pods(cluster: DevCluster, role: str) -> set[str]:
    found = listed(cluster, "pods", "-l", f"{names.LABEL_ROLE}={role}")
    return {body["metadata"]["uid"] for body in found.values() if "deletionTimestamp" not in body["metadata"]}


@pytest.mark.timeout(1200)  # the bounds of its waits add up to as much
def test_objects_stay_and_are_ready_and_the_pods_of_servers_and_listers_alone_are_replaced(run, cluster, tmp_path):
    earlier = str(EARLIER / "gravswell-0.1.0.tgz")
    run("install", RELEASE, earlier, "--create-namespace", "--set", "nodeSelector.nowhere=yes,log.level=debug")
    definitions = [f"crd/{document['metadata']['name']}" for document in crds()]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=90s", *definitions)
    objects = recorded(tmp_path / "models")
    asyncio.run(put(cluster, objects))
    roles = (names.ROLE_TRITON, names.ROLE_LISTER, names.ROLE_DEVICE_PLUGIN)
    for role in roles:
        wait_until(lambda role=role: pods(cluster, role), WAIT_SECONDS)
    before = {role: pods(cluster, role) for role in roles}
    ours, made = listed(cluster, "gravswell"), listed(cluster, KINDS_MADE, "-l", MADE)

    run(
        "upgrade",
        RELEASE,
        str(CHART),
        "--reset-then-reuse-values",
        "--set",
        "nodeSelector=null",
        "--wait",
        "--timeout=240s",
    )
    assert "--log-level=debug" in cluster.kubectl("get", "deployment", RELEASE, "-n", SYSTEM, "-o", "yaml")
    for role in (names.ROLE_TRITON, names.ROLE_LISTER):
        wait_until(lambda role=role: (now := pods(cluster, role)) and not now & before[role], WAIT_SECONDS)
    cluster.kubectl("wait", "--for=condition=Ready", "gnp/simulated", *OURS.split(","), "--timeout=180s", timeout=200)

    assert uids(listed(cluster, "gravswell")) == uids(ours)
    now = listed(cluster, KINDS_MADE, "-l", MADE)
    assert uids(now) == uids(made), "what was made is changed, not made anew"
    same = [key for key in made if key[0] not in ("Deployment", "ConfigMap")]
    assert {key: now[key].get("spec", now[key].get("rules")) for key in same} == {
        key: made[key].get("spec", made[key].get("rules")) for key in same
    }
    assert pods(cluster, names.ROLE_DEVICE_PLUGIN) == before[names.ROLE_DEVICE_PLUGIN]
    assert listed(cluster, "mdl")["Model", "digits"]["status"]["loadedVersion"] == 1
    # As users have them in their files, they are as good as before.
    wanted = [body for body in objects if body["apiVersion"].startswith("gravswell.dev/")]
    cluster.kubectl("apply", "--server-side", "--field-manager=user", "-f", "-", stdin=yaml.safe_dump_all(wanted))
    assert "forbidden" not in operator_log(cluster).lower()
    run("uninstall", RELEASE)
