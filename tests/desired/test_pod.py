"""The pods' own rules, beyond the golden files."""

import re
import shlex

import pytest

from gravswell.cli.agent import parse_bytes
from gravswell.logs import LogFormat
from gravswell.serving.triton.flags import pod_command
from gravswell_operator.api import GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.desired.objects import Options
from gravswell_operator.devcluster.node.rewriting import rewriter
from gravswell_operator.plan import plan

OPTIONS = Options(image="registry.example/gravswell:1")


def made(options=OPTIONS, url="file:///srv/models", account=None, pool=None, **spec):
    """The objects of one repository and one server, on ``pool``."""
    other = {"serviceAccountName": account} if account else {}
    repository = ModelRepository.model_validate(
        {"metadata": {"name": "models", "namespace": "n"}, "spec": {"url": url, **other}}
    )
    server = InferenceServer.model_validate(
        {
            "metadata": {"name": "server", "namespace": "n"},
            "spec": {"repositoryRef": {"name": "models"}, "tag": "24.08", "replicas": 1, "models": "All", **spec},
        }
    )
    pools = [pool] if pool is not None else []
    planned = plan([*pools, repository, server], options).objects
    return [manifest for one in planned for manifest in one.children]


def test_agents_and_listers_pull_from_a_private_registry():
    options = Options(image="registry.example/gravswell:1", image_pull_secrets=("mirror", "other"))
    accounts = [manifest for manifest in made(options) if manifest["kind"] == "ServiceAccount"]
    assert [account["metadata"]["name"] for account in accounts] == ["models-lister", "server-agent"]
    for account in accounts:
        assert account["imagePullSecrets"] == [{"name": "mirror"}, {"name": "other"}]
    assert not any("imagePullSecrets" in manifest for manifest in made())


def test_a_server_pulls_its_own_image_from_a_private_registry():
    options = Options(image="registry.example/gravswell:1", image_pull_secrets=("mirror",))
    template = {"imagePullSecrets": [{"name": "team"}, {"name": "mirror"}]}
    for given, expected in ((options, ["mirror", "team"]), (OPTIONS, ["team", "mirror"])):
        lister, server = pods(options=given, podTemplate=template)
        assert "imagePullSecrets" not in lister
        assert server["imagePullSecrets"] == [{"name": name} for name in expected]
    assert not any("imagePullSecrets" in pod for pod in pods(options=options))


def test_an_account_of_the_users_is_left_to_the_user():
    options = Options(image="registry.example/gravswell:1", image_pull_secrets=("mirror",))
    assert not [manifest for manifest in made(options, account="mine") if manifest["kind"] == "ServiceAccount"]


def pods(**options):
    return [m["spec"]["template"]["spec"] for m in made(**options) if m["kind"] == "Deployment"]


def containers(**options):
    return [c for pod in pods(**options) for c in (*pod.get("initContainers", ()), *pod["containers"])]


def named(name, **options):
    (found,) = [container for container in containers(**options) if container["name"] == name]
    return found


def test_our_own_containers_write_to_their_mounts_only():
    ours = [container for container in containers() if container["image"] == OPTIONS.image]
    assert sorted(container["name"] for container in ours) == ["agent", "key", "lister"]
    for container in ours:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        temporary = [variable["value"] for variable in container.get("env", ()) if variable["name"] == "TMPDIR"]
        assert set(temporary) <= set(writable)
        assert temporary or container["name"] == "key"


def test_triton_writes_to_its_image_unless_its_server_says_otherwise():
    usual = named("triton")
    assert "readOnlyRootFilesystem" not in usual["securityContext"]
    triton = named("triton", readOnlyRootFilesystem=True)
    assert triton["securityContext"] == {**usual["securityContext"], "readOnlyRootFilesystem": True}
    writable = {mount["mountPath"] for mount in triton["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", "/dev/shm"}
    others = [
        c["name"]
        for c in containers(readOnlyRootFilesystem=True)
        if "/tmp" in {m["mountPath"] for m in c["volumeMounts"]}
    ]
    assert others == ["triton"]


def test_triton_closes_further_apis_where_its_server_says_so():
    also = ["statistics", "model-config"]
    (usual,), (closed,) = named("triton")["args"], named("triton", restrictedAPIs=also)["args"]
    assert usual.count("trace,logging:") == closed.count("trace,logging,statistics,model-config:") == 2
    assert closed.replace(",statistics,model-config", "") == usual


def test_a_replica_is_drained_before_it_is_killed():
    """Both containers wait until nobody is sent there any more, and Triton has its time for what it has begun."""
    (server,) = [pod for pod in pods() if "initContainers" in pod]
    pauses = {c["name"]: c["lifecycle"]["preStop"]["sleep"]["seconds"] for c in server["containers"]}
    assert pauses["triton"] == pauses["agent"] > 0
    (exit_seconds,) = re.findall(r"--exit-timeout-secs=(\d+)", named("triton")["args"][0])
    assert pauses["triton"] + int(exit_seconds) < server["terminationGracePeriodSeconds"]


def test_every_mount_has_its_volume():
    for pod in pods(url="pvc://claim/models"):
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.parametrize("folder", ["/models", "/models/zoo", "/repository", "/tmp/models", "/run", "/home/me/models"])
@pytest.mark.parametrize("name", ["agent", "lister"])
def test_the_folder_of_a_repository_is_no_mount_of_ours(name, folder):
    """The development cluster's node puts folders in place of mount paths, wherever it finds them."""
    container = named(name, url=f"file://{folder}")
    rewrite = rewriter({mount["mountPath"]: "/elsewhere" for mount in container["volumeMounts"]})
    url = container["args"][container["args"].index("--repository") + 1]
    assert (url, rewrite(url)) == (f"file://{folder}", f"file://{folder}")


@pytest.mark.parametrize(("storage", "size"), [("10Gi", 10 * 2**30), ("1.5G", 15 * 10**8), ("1Pi", 2**50)])
def test_the_agent_knows_how_much_it_may_store(storage, size):
    (pod,) = [pod for pod in pods(modelStorage=storage) if "initContainers" in pod]
    assert pod["volumes"][0]["emptyDir"] == {"sizeLimit": storage}
    arguments = named("agent", modelStorage=storage)["args"]
    assert parse_bytes(arguments[arguments.index("--storage-limit") + 1]) == size


def test_a_cache_is_the_agents_alone():
    claim = {"claimName": "shelf", "sizeLimit": "200Gi"}
    cache = {"type": "PersistentVolumeClaim", "persistentVolumeClaim": claim}
    (pod,) = [pod for pod in pods(cache=cache) if "initContainers" in pod]
    (volume,) = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    assert volume["persistentVolumeClaim"] == {"claimName": "shelf"}
    mounts = {
        container["name"]: mount["mountPath"]
        for container in (*pod["initContainers"], *pod["containers"])
        for mount in container["volumeMounts"]
        if mount["name"] == volume["name"]
    }
    arguments = named("agent", cache=cache)["args"]
    assert mounts == {"agent": arguments[arguments.index("--cache") + 1]}
    assert parse_bytes(arguments[arguments.index("--cache-limit") + 1]) == 200 * 2**30
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    del claim["sizeLimit"]
    assert "--cache-limit" not in named("agent", cache=cache)["args"]


def test_agents_and_listers_log_as_the_operator_was_told():
    options = Options(image="ours", agent_log_format=LogFormat.JSON)
    containers = [c for pod in pods(options=options) for c in pod["containers"] if c["name"] in ("agent", "lister")]
    assert [c["args"][-2:] for c in containers] == [["--log-format", "json"]] * 2
    assert not any("--log-format" in c["args"] for pod in pods() for c in pod["containers"])


def test_triton_is_started_as_the_library_says():
    (text,) = named("triton")["args"]
    mounts = {mount["name"]: mount for mount in named("triton")["volumeMounts"]}
    assert mounts["models"]["readOnly"]
    assert text == pod_command(
        model_repository=mounts["models"]["mountPath"],
        key_file=f"{mounts['run']['mountPath']}/key",
        exit_timeout_seconds=30,
    )
    assert "--strict-readiness=false" in shlex.split(text)


def test_only_who_asks_for_gpus_sees_any():
    """NVIDIA's runtime shows what this variable says; with GPUs the device plugin sets it, and ours would win."""

    def said(**spec):
        (triton,) = [container for container in containers(**spec) if container["name"] == "triton"]
        devices = [v["value"] for v in triton["env"] if v["name"] == "NVIDIA_VISIBLE_DEVICES"]
        return devices, triton["resources"]["limits"].get("nvidia.com/gpu")

    assert said() == (["void"], None)
    pool = GPUNodePool.model_validate(
        {
            "metadata": {"name": "pool"},
            "spec": {
                "provider": {"type": "Static", "static": {"matchLabels": {"gpu": "t4"}}},
                "accelerator": {"type": "nvidia-tesla-t4", "count": 1},
                "allowedNamespaces": ["n"],
            },
        }
    )
    assert said(pool=pool, gpus=1, nodePoolRef={"name": "pool"}) == ([], "1")
    assert said(pool=pool, gpus=0) == (["void"], None)
