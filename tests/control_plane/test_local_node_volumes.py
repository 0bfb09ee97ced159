"""Volumes and environment on the local node: true content, rewritten paths, updates while the pod runs."""

import base64
import json
import time
from typing import Any

import pytest


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", script], **more}


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def mount(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **more}


def log_until(pods: Any, name: str, text: str) -> str:
    end = time.monotonic() + 60
    while text not in (found := pods.logs(name)):
        assert time.monotonic() < end, found
        time.sleep(0.3)
    return found


def test_environment_comes_from_everywhere_that_kubernetes_takes_it_from(pods):
    pods.apply(config_map("settings", COLOUR="green", SIZE="2"), secret("hidden", TOKEN="s3cret", KEY="k"))
    variables = [
        {"name": "PLAIN", "value": "plain"},
        {"name": "COMPOSED", "value": "$(PLAIN)-$(COLOUR)-$(UNKNOWN)-$$(PLAIN)"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "TOKEN"}}},
        {"name": "ABSENT", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}},
        {"name": "SIZE", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "none", "optional": True}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    pods.create(
        "env",
        {
            "command": ["env"],
            "env": variables,
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "S_", "secretRef": {"name": "hidden"}}],
            "resources": {"limits": {"memory": "1Gi"}},
        },
        labels={"tier": "test"},
        restartPolicy="Never",
    )
    pods.until_phase("env", "Succeeded")
    got = dict(line.split("=", 1) for line in pods.logs("env").splitlines() if "=" in line)
    wanted = {
        "COLOUR": "green",
        "SIZE": "2",
        "S_KEY": "k",
        "PLAIN": "plain",
        "COMPOSED": "plain-green-$(UNKNOWN)-$(PLAIN)",
        "TOKEN": "s3cret",
        "NAME": "env",
        "NODE": "gravswell-local",
        "LABEL": "test",
        "MEMORY": "1024",
        "GRAVSWELL_SIMULATED_GPUS": "1",
    }
    assert {key: got.get(key) for key in wanted} == wanted
    assert "ABSENT" not in got


def test_a_missing_config_map_is_a_config_error_until_it_appears(pods):
    pods.create("early", {"command": ["env"], "envFrom": [{"configMapRef": {"name": "late"}}]}, restartPolicy="Never")

    def waits(pod: dict[str, Any]) -> bool:
        states = [s["state"] for s in pod["status"].get("containerStatuses", [])]
        return any(s.get("waiting", {}).get("reason") == "CreateContainerConfigError" for s in states)

    pod = pods.until("early", waits)
    assert "late" in pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    pods.apply(config_map("late", ARRIVED="yes"))
    pods.until_phase("early", "Succeeded")
    assert "ARRIVED=yes" in pods.logs("early")


def test_mounted_config_maps_and_secrets_follow_their_objects(pods):
    pods.apply(config_map("live", value="one", other="x"), secret("sealed", password="pw"))
    look = "cat /etc/live/value /etc/sealed/pass/word; stat -L -c %a /etc/sealed/pass/word; ls /etc/maybe"
    script = f"while :; do echo $({look}); sleep 0.3; done"
    pods.create(
        "watcher",
        sh(script, volumeMounts=[mount(name, f"/etc/{name}") for name in ("live", "sealed", "maybe")]),
        volumes=[
            {
                "name": "maybe",
                "secret": {"secretName": "sealed", "items": [{"key": "later", "path": "later"}], "optional": True},
            },
            {"name": "live", "configMap": {"name": "live", "items": [{"key": "value", "path": "value"}]}},
            {
                "name": "sealed",
                "secret": {
                    "secretName": "sealed",
                    "items": [{"key": "password", "path": "pass/word"}],
                    "defaultMode": 0o440,
                },
            },
        ],
    )
    pods.until_ready("watcher")
    log_until(pods, "watcher", "onepw440\n")
    pods.apply(config_map("live", value="two"), secret("sealed", password="pw", later="is here"))
    log_until(pods, "watcher", "twopw440 later\n")


def test_a_pod_waits_for_a_config_map_volume_and_says_so(pods):
    pods.create(
        "patient",
        sh("cat /c/key", volumeMounts=[mount("c", "/c")]),
        restartPolicy="Never",
        volumes=[{"name": "c", "configMap": {"name": "missing"}}],
    )
    assert '"missing" not found' in pods.until_event("patient", "FailedMount")["message"]
    assert pods.get("patient")["status"]["phase"] == "Pending"
    pods.apply(config_map("missing", key="here"))
    pods.until_phase("patient", "Succeeded")
    assert pods.logs("patient") == "here"


def test_the_projected_token_is_valid_and_bound_to_the_pod(pods, kubectl, namespace):
    kubectl("create", "serviceaccount", "worker", "-n", namespace)
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f"ls $GRAVSWELL_SERVICEACCOUNT; cat {folder}/namespace; echo; cat {folder}/token; sleep 600"
    pods.create("holder", sh(script), serviceAccountName="worker")
    pod = pods.until_ready("holder")
    lines = log_until(pods, "holder", "ey").splitlines()
    assert lines[:4] == ["ca.crt", "namespace", "token", namespace]
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "metadata": {},
        "spec": {"token": lines[4]},
    }
    answer = json.loads(kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))["status"]
    assert answer["authenticated"]
    assert answer["user"]["username"] == f"system:serviceaccount:{namespace}:worker"
    assert answer["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]


def test_a_short_lived_token_is_renewed(pods):
    source = {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}}
    pods.create(
        "renewing",
        sh("cat /t/token; sleep 600", volumeMounts=[mount("t", "/t")]),
        volumes=[{"name": "t", "projected": {"sources": [source]}}],
        automountServiceAccountToken=False,
    )
    pods.until_ready("renewing")
    claims = log_until(pods, "renewing", ".").split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert decoded["aud"] == ["somebody"]
    assert decoded["exp"] - decoded["iat"] == 600


def test_the_agents_own_credentials_reach_the_api_server(pods, kubectl, namespace):
    script = (
        "import asyncio\n"
        "from gravswell.kube import client, credentials, resources\n"
        "async def main():\n"
        "    async with client.Client(credentials.in_cluster(), name='test') as api:\n"
        "        found = await api.get(resources.CONFIG_MAP, credentials.pod_namespace(), 'mine')\n"
        "        print(found['data']['key'])\n"
        "asyncio.run(main())\n"
    )
    pods.apply(config_map("mine", key="reached"))
    kubectl("create", "role", "reader", "--verb=get", "--resource=configmaps", "-n", namespace)
    kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:default", "-n", namespace
    )
    pods.create("client", {"command": ["python", "-c", script]}, restartPolicy="OnFailure")
    pods.until_phase("client", "Succeeded")
    assert pods.logs("client") == "reached\n"


def test_paths_below_mounts_are_rewritten_everywhere(pods):
    pods.create(
        "paths",
        sh(
            'echo "$GREETING" > /models/a; cat $FILE; cd /models; cat a; echo --repository=file:///models /models2',
            env=[{"name": "FILE", "value": "/models/a"}, {"name": "GREETING", "value": "hello"}],
            volumeMounts=[mount("m", "/models"), mount("m", "/models/sub", subPath="below")],
            workingDir="/models",
        ),
        volumes=[{"name": "m", "emptyDir": {}}],
        restartPolicy="Never",
    )
    pods.until_phase("paths", "Succeeded")
    first, second, last = pods.logs("paths").splitlines()
    assert (first, second) == ("hello", "hello")
    assert last.endswith("/volumes/m /models2")


def test_a_claim_on_a_folder_of_this_machine_is_mounted(pods, kubectl, namespace, tmp_path):
    (tmp_path / "file").write_text("from the volume")
    volume = f"vol-{namespace}"
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    pods.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "claim"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
    )
    document = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume},
        "spec": {**spec, "hostPath": {"path": str(tmp_path)}},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(document))
    pods.create(
        "claimant",
        sh("cat /v/file", volumeMounts=[mount("v", "/v")]),
        restartPolicy="Never",
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}],
    )
    pods.until_phase("claimant", "Succeeded")
    assert pods.logs("claimant") == "from the volume"
    kubectl("delete", "pv", volume, "--wait=false")


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"nfs": {"server": "s", "path": "/"}}, "nfs, which the local node does not offer"),
        ({"hostPath": {"path": "/no/such/folder"}}, "/no/such/folder does not exist"),
    ],
)
def test_a_volume_that_cannot_be_is_refused_with_its_reason(pods, volume, message):
    pods.create("refused", sh("true", volumeMounts=[mount("v", "/v")]), volumes=[{"name": "v", **volume}])
    assert message in pods.until_event("refused", "FailedMount")["message"]
