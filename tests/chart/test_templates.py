"""What helm makes of the chart, without a cluster."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from gravswell_operator.api import values as table
from gravswell_operator.api.crd import crds
from gravswell_operator.cluster.lease import LEASE_NAME, LEASE_NAMESPACE

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/gravswell"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
README = (CHART / "README.md").read_text()
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def only(documents, kind, namespace=None):
    """The one document of its kind (and namespace)."""
    found = [d for d in documents if d["kind"] == kind and namespace in (None, d["metadata"].get("namespace"))]
    assert len(found) == 1, f"{len(found)} documents of kind {kind}"
    return found[0]


def test_lint_finds_nothing(helm):
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout
    assert "ERROR" not in done.stdout


def test_what_the_chart_holds(render):
    kinds = sorted(
        (d["kind"], d["metadata"].get("namespace", "")) for d in render() if d["kind"] != "CustomResourceDefinition"
    )
    assert kinds == [
        ("ClusterRole", ""),
        ("ClusterRole", ""),
        ("ClusterRole", ""),
        ("ClusterRoleBinding", ""),
        ("Deployment", "system"),
        ("Namespace", ""),
        ("Role", "gravswell-drivers"),
        ("Role", "kube-system"),
        ("RoleBinding", "gravswell-drivers"),
        ("RoleBinding", "kube-system"),
        ("ServiceAccount", "system"),
    ]


def test_definitions_are_the_generated_ones_and_are_kept(render):
    rendered = {d["metadata"]["name"]: d for d in render() if d["kind"] == "CustomResourceDefinition"}
    assert rendered.keys() == {document["metadata"]["name"] for document in crds()}
    for document in crds():
        found = rendered[document["metadata"]["name"]]
        assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert found == document


def test_definitions_can_be_left_out(render):
    assert not [d for d in render({"crds.install": False}) if d["kind"] == "CustomResourceDefinition"]


def test_without_drivers_there_is_no_privileged_namespace_and_no_right_on_it(render):
    documents = render({"drivers.enabled": False})
    assert not [d for d in documents if d["kind"] == "Namespace"]
    assert {d["metadata"]["namespace"] for d in documents if d["kind"] == "Role"} == {"kube-system"}
    roles = [d for d in documents if d["kind"] == "ClusterRole"]
    assert "namespaces" not in str([role["rules"] for role in roles])


def test_the_drivers_namespace_is_one_value_everywhere(render):
    documents = render({"drivers.namespace": "plugins"})
    assert only(documents, "Namespace")["metadata"]["name"] == "plugins"
    assert only(documents, "RoleBinding", "plugins")
    assert (
        "--drivers-namespace=plugins"
        in only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    assert "gravswell-drivers" not in str(documents)


@pytest.mark.parametrize(
    ("values", "image"),
    [
        (
            {},
            f"ghcr.io/gravswell/gravswell:{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}",
        ),
        ({"image.tag": "1.2.3", "image.repository": "registry:5000/mirror"}, "registry:5000/mirror:1.2.3"),
        ({"image.digest": "sha256:" + "a" * 64}, "ghcr.io/gravswell/gravswell@sha256:" + "a" * 64),
    ],
)
def test_one_image_for_the_operator_and_what_it_makes(render, values, image):
    container = only(render(values), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == image
    assert f"--image={image}" in container["args"]


def test_the_pod_passes_the_restricted_standard(render):
    pod = only(render(), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()


def test_where_the_pod_runs_is_the_users_choice(render):
    tolerations = [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]
    values = {
        "nodeSelector": {"pool": "system"},
        "tolerations": tolerations,
        "priorityClassName": "system-cluster-critical",
    }
    pod = only(render(values), "Deployment")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "system"}
    assert pod["tolerations"] == tolerations
    assert pod["priorityClassName"] == "system-cluster-critical"


def test_the_role_holds_no_more_than_it_says(render):
    documents = render()
    bound = {d["roleRef"]["name"] for d in documents if d["kind"] in ("RoleBinding", "ClusterRoleBinding")}
    roles = [d for d in documents if d["kind"] in ("Role", "ClusterRole") and d["metadata"]["name"] in bound]
    rules = [rule for role in roles for rule in role["rules"]]
    resources = {resource for rule in rules for resource in rule["resources"]}
    verbs = {verb for rule in rules for verb in rule["verbs"]}
    assert not resources & {
        "*",
        "secrets",
        "pods/exec",
        "pods/log",
        "clusterroles",
        "clusterrolebindings",
        "nodes/proxy",
    }
    assert not verbs & {"*", "escalate", "bind", "impersonate", "deletecollection"}
    ours = [rule for rule in rules if rule["apiGroups"] == ["gravswell.dev"]]
    assert {verb for rule in ours for verb in rule["verbs"] if verb not in ("get", "list", "watch")} == {"patch"}
    assert all(r.endswith("/status") for rule in ours if "patch" in rule["verbs"] for r in rule["resources"])


def test_users_roles_can_be_left_as_they_are(render):
    assert only(render({"rbac.aggregate": False}), "ClusterRole")["metadata"]["name"] == "release-gravswell"


def test_the_lease_can_be_elsewhere(render):
    documents = render({"lease.namespace": "leases"})
    (container,) = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--lease-namespace=leases" in container["args"]
    assert only(documents, "Role", "leases")["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [LEASE_NAME],
            "verbs": ["get", "update"],
        },
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]
    assert VALUES["lease"]["namespace"] == LEASE_NAMESPACE


def test_a_private_registry_is_for_the_operator_and_for_what_it_makes(render):
    pod = only(render({"imagePullSecrets": [{"name": "mirror"}]}), "Deployment")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "mirror"}]
    assert "--image-pull-secret=mirror" in pod["containers"][0]["args"]


def test_network_policies_are_made_where_they_are_asked_for(render):
    documents = render()
    assert not [d for d in documents if d["kind"] == "NetworkPolicy"]
    assert "--network-policies" not in str(only(documents, "Deployment"))

    scraper = {"kubernetes.io/metadata.name": "monitoring", "team": "a"}
    documents = render({"networkPolicy": {"operator": True, "servers": True, "metricsFrom": scraper}})
    template = only(documents, "Deployment")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert {"--network-policies", "--metrics-from=team=a"} < set(container["args"])
    spec = only(documents, "NetworkPolicy", "system")["spec"]
    assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (rule,) = spec["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": scraper}}]
    assert [port["port"] for port in rule["ports"]] == [port["containerPort"] for port in container["ports"]]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 443, 6443]

    closed = only(render({"networkPolicy.operator": True, "networkPolicy.apiServerPorts": [16443]}), "NetworkPolicy")
    assert "ingress" not in closed["spec"]
    assert closed["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert closed["spec"]["egress"][0]["ports"][-1]["port"] == 16443


def test_the_operators_policy_lets_it_reach_google_where_it_makes_pools_there(render):
    values = {"networkPolicy.operator": True, "networkPolicy.apiServerPorts": [6443], "gke.enabled": True}
    anywhere, metadata = only(render(values), "NetworkPolicy")["spec"]["egress"]
    assert "to" not in anywhere
    assert [port["port"] for port in anywhere["ports"]] == [53, 53, 6443, 443]
    # As GKE's documentation has it: the one address with Dataplane V2, the other one without.
    assert {to["ipBlock"]["cidr"] for to in metadata["to"]} == {"169.254.169.254/32", "169.254.169.252/32"}
    assert [port["port"] for port in metadata["ports"]] == [80, 988]


def test_an_account_of_your_own(render, helm):
    documents = render({"serviceAccount.create": False, "serviceAccount.name": "mine"})
    assert not [d for d in documents if d["kind"] == "ServiceAccount"]
    assert only(documents, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    assert only(documents, "ClusterRoleBinding")["subjects"][0]["name"] == "mine"
    done = helm("template", "release", str(CHART), "--set", "serviceAccount.create=false")
    assert "serviceAccount.name is needed where serviceAccount.create is false" in done.stderr


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("replicas=2", "replicas"),
        ("image.name=x", "image"),
        ("image.tag=a b", "image/tag"),
        ("image.repository=", "image/repository"),
        ("image.digest=sha256:1", "image/digest"),
        ("log.level=loud", "log/level"),
        ("drivers.enabled=perhaps", "drivers/enabled"),
        ("drivers.namespace=Not_One", "drivers/namespace"),
        ("lease.namespace=", "lease/namespace"),
        ("networkPolicy.apiServerPorts={0}", "apiServerPorts"),
        ("nodeSelector=a", "nodeSelector"),
        ("triton.repository=a b", "triton/repository"),
        ("resources.request.cpu=1", "request"),
        (
            "podLabels.app\\.kubernetes\\.io/name=mine",
            "invalid propertyName",
        ),  # the Deployment selects by the chart's own
    ],
)
def test_values_that_cannot_be_right_are_refused(helm, flag, words):
    done = helm("template", "release", str(CHART), "--set", flag)
    assert done.returncode != 0
    assert words in done.stderr


def test_it_can_be_a_subchart(helm):
    done = helm("template", "release", str(CHART), "--set", "global.anything=1")
    assert done.returncode == 0, done.stderr


def test_every_value_is_described_and_every_description_has_a_value():
    def check(schema, values, path):
        assert schema["properties"].keys() - {"global"} == values.keys(), path
        for name, node in schema["properties"].items():
            assert node["description"].endswith("."), f"{path}.{name}"
            if node.get("additionalProperties") is False and name in values:
                check(node, values[name], f"{path}.{name}")

    assert SCHEMA["additionalProperties"] is False
    check(SCHEMA, VALUES, "")


def test_the_readme_lists_the_values(tmp_path, capsys):
    assert table.main(["--root", str(ROOT), "--check"]) == 0
    chart = tmp_path / table.CHART
    shutil.copytree(CHART, chart)
    readme = chart / "README.md"
    readme.write_text(readme.read_text().replace("Tag of the image", "A tag"))
    assert table.main(["--root", str(tmp_path), "--check"]) == 1
    assert "README.md is out of date; run python -m gravswell_operator.api.values" in capsys.readouterr().err
    assert table.main(["--root", str(tmp_path)]) == 0
    assert readme.read_text() == README


def test_the_readme_names_all_that_an_uninstall_leaves(render):
    removal = " ".join(README.partition("To remove everything")[2].partition("\n- ")[0].split())
    kept = only(render(), "Namespace")
    assert f"kubectl delete namespace {kept['metadata']['name']}`" in removal
    assert f"kubectl delete lease {LEASE_NAME} --namespace {LEASE_NAMESPACE}`" in removal
    assert "kubectl delete crd " in removal


def test_kubernetes_without_selectable_fields_is_refused(helm):
    """It would drop them silently."""
    assert "Kubernetes 1.31 or newer" in README
    done = helm("template", "release", str(CHART), "--kube-version", "1.30.9")
    assert "incompatible with Kubernetes v1.30.9" in done.stderr
    assert helm("template", "release", str(CHART), "--kube-version", "1.31.0").returncode == 0


def test_the_chart_is_of_this_release():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (
        chart["version"]
        == chart["appVersion"]
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )


def test_a_long_release_name_still_gives_valid_names(helm):
    done = helm("template", "r" * 53, str(CHART))
    assert done.returncode == 0, done.stderr
    names = [d["metadata"]["name"] for d in yaml.safe_load_all(done.stdout) if d and d["kind"] == "Deployment"]
    assert all(len(name) <= 63 for name in names)


def test_the_certificate_authority_of_a_clouds_cluster_is_compared_unless_the_chart_says_otherwise(render):
    flag = "--no-verify-cluster"
    assert flag not in str(render({"gke.enabled": True}))
    assert flag in str(render({"gke.enabled": True, "gke.verifyCluster": False}))
