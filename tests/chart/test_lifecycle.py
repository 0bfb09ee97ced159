"""The chart on a real API server: what helm leaves there, and what the operator's account may do then."""

import json
import time
from pathlib import Path

import pytest
import yaml

from gravswell.errors import GravswellError

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/gravswell"
RELEASE, SYSTEM = "gravswell", "gravswell-system"
ACCOUNT = f"--as=system:serviceaccount:{SYSTEM}:{RELEASE}"


@pytest.fixture(scope="module")
def run(helm, cluster):
    """``run(*arguments)``: helm against the cluster; its output, or a failed test."""

    def call(*arguments, fails=False):
        done = helm("--kubeconfig", str(cluster.kubeconfig), "--namespace", SYSTEM, *arguments)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


@pytest.fixture(scope="module")
def installed(run, cluster):
    notes = run("upgrade", "--install", RELEASE, str(CHART), "--create-namespace")
    names = [
        f"crd/{plural}.gravswell.dev" for plural in ("gpunodepools", "modelrepositories", "inferenceservers", "models")
    ]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    return notes


@pytest.fixture(scope="module")
def kubectl(installed, cluster):
    return cluster.kubectl


def require_answer(kubectl, wanted, *question):
    """That this is the answer, now or soon: a controller aggregates roles, and the authorizer hears of them then."""
    deadline = time.monotonic() + 90
    while (answer := kubectl("auth", "can-i", *question, check=False).strip()) != wanted:
        assert time.monotonic() < deadline, answer
        time.sleep(0.5)


def test_the_notes_say_what_to_do_next(installed):
    assert f"kubectl -n {SYSTEM} rollout status deployment/{RELEASE}" in installed
    assert "kubectl get gravswell --all-namespaces" in installed


def test_the_pod_is_admitted_where_the_restricted_standard_is_enforced(kubectl):
    kubectl("create", "namespace", "restricted")
    kubectl("label", "namespace", "restricted", "pod-security.kubernetes.io/enforce=restricted")
    deployment = json.loads(kubectl("get", "deployment", RELEASE, "-n", SYSTEM, "-o", "json"))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator"},
        "spec": deployment["spec"]["template"]["spec"],
    }
    pod["spec"]["serviceAccountName"] = "default"
    kubectl("create", "serviceaccount", "default", "-n", "restricted", check=False)
    kubectl("apply", "--dry-run=server", "-n", "restricted", "-f", "-", stdin=json.dumps(pod))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (("list", "inferenceservers.gravswell.dev", "--all-namespaces"), "yes"),
        (("patch", "models.gravswell.dev", "--subresource=status", "-n", "default"), "yes"),
        (("patch", "models.gravswell.dev", "-n", "default"), "no"),
        (("delete", "inferenceservers.gravswell.dev", "-n", "default"), "no"),
        (("create", "deployments.apps", "-n", "default"), "yes"),
        (("create", "daemonsets.apps", "-n", "default"), "no"),
        (("create", "daemonsets.apps", "-n", "gravswell-drivers"), "yes"),
        (("watch", "daemonsets.apps", "--all-namespaces"), "yes"),
        (("watch", "nodes"), "yes"),
        (("patch", "nodes"), "no"),
        (("get", "secrets", "-n", "default"), "no"),
        (("create", "pods", "-n", "default"), "no"),
        (("create", "pods", "--subresource=exec", "-n", "default"), "no"),
        (("create", "clusterroles.rbac.authorization.k8s.io"), "no"),
        (("create", "leases.coordination.k8s.io", "-n", "kube-system"), "yes"),
        (("create", "leases.coordination.k8s.io", "-n", "default"), "no"),
        (("update", "leases.coordination.k8s.io/gravswell-operator", "-n", "kube-system"), "yes"),
        (("update", "leases.coordination.k8s.io/kube-scheduler", "-n", "kube-system"), "no"),
        (("get", "leases.coordination.k8s.io/kube-scheduler", "-n", "kube-system"), "no"),
        (("create", "events.events.k8s.io", "-n", "default"), "yes"),
        (("create", "namespaces"), "no"),
        (("escalate", "roles.rbac.authorization.k8s.io", "-n", "default"), "no"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_the_least_that_it_needs(kubectl, question, answer):
    require_answer(kubectl, answer, *question, ACCOUNT)


@pytest.mark.parametrize(
    ("role", "question", "answer"),
    [
        ("view", ("get", "models.gravswell.dev"), "yes"),
        ("view", ("watch", "inferenceservers.gravswell.dev"), "yes"),
        ("view", ("create", "models.gravswell.dev"), "no"),
        ("edit", ("create", "models.gravswell.dev"), "yes"),
        ("edit", ("delete", "modelrepositories.gravswell.dev"), "yes"),
        ("edit", ("patch", "inferenceservers.gravswell.dev", "--subresource=scale"), "yes"),
        ("edit", ("patch", "inferenceservers.gravswell.dev", "--subresource=status"), "no"),
        ("edit", ("create", "gpunodepools.gravswell.dev"), "no"),
        ("admin", ("create", "inferenceservers.gravswell.dev"), "yes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_the_built_in_roles_cover_the_kinds_of_a_namespace(kubectl, role, question, answer):
    binding = f"{role}-of-a-team"
    kubectl("create", "rolebinding", binding, f"--clusterrole={role}", f"--user={role}er", "-n", "default", check=False)
    require_answer(kubectl, answer, *question, "-n", "default", f"--as={role}er")


def test_roles_for_agents_can_be_made_and_stronger_ones_cannot(kubectl):
    make = ("create", "role", "-n", "default", ACCOUNT, "--dry-run=server")
    kubectl(*make, "agent", "--verb=get,list,watch", "--resource=configmaps", "--resource-name=server-desired")
    kubectl(*make, "agent", "--verb=get,patch", "--resource=configmaps", "--resource-name=server-report")
    with pytest.raises(GravswellError, match="attempting to grant RBAC permissions not currently held"):
        kubectl(*make, "thief", "--verb=get", "--resource=secrets")


def test_an_upgrade_brings_new_definitions_and_an_uninstall_keeps_objects(run, kubectl, tmp_path):
    example = (ROOT / "examples/gpunodepool.yaml").read_text()
    kubectl("apply", "-f", "-", stdin=example)
    pool = yaml.safe_load(example)["metadata"]["name"]

    newer = tmp_path / "gravswell"
    for path in CHART.rglob("*"):
        if path.is_file():
            target = newer / path.relative_to(CHART)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
    definition = newer / "templates/crds/gravswell.dev_gpunodepools.yaml"
    definition.write_text(definition.read_text().replace("A set of nodes with GPUs", "A newer set of nodes with GPUs"))
    run("upgrade", RELEASE, str(newer), "--set", "log.level=debug")
    assert "A newer set of nodes" in kubectl("get", "crd", "gpunodepools.gravswell.dev", "-o", "yaml")
    assert "--log-level=debug" in kubectl("get", "deployment", RELEASE, "-n", SYSTEM, "-o", "yaml")

    run("uninstall", RELEASE)
    assert kubectl("get", "gpunodepool", pool, "-o", "name").strip() == f"gpunodepool.gravswell.dev/{pool}"
    assert "gravswell-drivers" in kubectl("get", "namespace", "-o", "name")
    assert not kubectl("get", "deployments,roles,rolebindings", "-n", SYSTEM, "-o", "name")
    assert f"serviceaccount/{RELEASE}" not in kubectl("get", "serviceaccounts", "-n", SYSTEM, "-o", "name").split()
    assert RELEASE not in kubectl("get", "clusterrole,clusterrolebinding", "-o", "name").replace("gravswell.dev", "")

    # Back again, under the same name as it is and under another one by taking over what was kept.
    run("install", RELEASE, str(CHART))
    run("uninstall", RELEASE)
    assert "invalid ownership metadata" in run("install", "other", str(CHART), fails=True)
    run("install", "other", str(CHART), "--take-ownership")
    assert kubectl("get", "gpunodepool", pool, "-o", "name")
    run("uninstall", "other")


def delete_definitions(kubectl):
    """Where the API server deletes a definition while its storage is made anew, it tries again only when the definition
    changes, or after five minutes: so change it."""
    definitions = ("-f", str(ROOT / "crds"))
    kubectl("delete", *definitions, "--wait=false")
    deadline = time.monotonic() + 120
    while kubectl("get", *definitions, "--ignore-not-found", "-o", "name").strip():
        assert time.monotonic() < deadline
        time.sleep(1)
        kubectl("annotate", *definitions, f"looked-at={time.monotonic()}", "--overwrite", check=False)


def test_definitions_that_kubectl_applied_are_taken_over_or_left_alone(run, kubectl):
    delete_definitions(kubectl)
    kubectl("apply", "-f", str(ROOT / "crds"))
    run("install", RELEASE, str(CHART), "--set", "crds.install=false", "--take-ownership")
    run("upgrade", RELEASE, str(CHART), "--set", "crds.install=true", "--take-ownership")
    kept = json.loads(kubectl("get", "crd", "models.gravswell.dev", "-o", "json"))
    assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    # Leaving them out of a later release must not delete them, and with them every object.
    run("upgrade", RELEASE, str(CHART), "--set", "crds.install=false")
    run("uninstall", RELEASE)
    assert (
        json.loads(kubectl("get", "crd", "models.gravswell.dev", "-o", "json"))["metadata"]["uid"]
        == kept["metadata"]["uid"]
    )
