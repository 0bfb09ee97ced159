"""The README's first command, as a user runs it, with the real parts.

The whole way is gone with the packages that its set-up installs, by links, and no others; the rest with the tests' own.
"""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from gravswell.cache import cache_dir
from gravswell_operator.devcluster import ControlPlane, DevCluster, ensure_binaries
from gravswell_operator.devcluster.binaries import ASSETS_ENV, CONTROL_PLANE, PROGRAMS

from ..environments import make_environment

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "gravswell", "demo"]
BOUND = 400
"""Seconds: the demo takes about one minute on an idle machine."""

LATE_GO = """\
#!/bin/sh
if [ "$1" = build ]; then
  for second in $(seq {bound}); do
    grep -q "Served by Kubernetes: a real control plane" {log} && break
    sleep 1
  done
fi
exec {go} "$@"
"""
"""A toolchain that compiles once the demo's last chapter has begun, as one does that has more to compile."""


def run_demo(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*DEMO, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )


def wait_for(words: str, demo: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + BOUND
    while words not in log.read_text():
        assert demo.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gravswell`` in an environment as the README's first command sets it up."""
    [extra] = re.findall(
        r"^python3 .* install -q -e '\.(\[\w+\])' && \.venv/bin/gravswell demo$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    return make_environment(tmp_path_factory.mktemp("set-up"), f"gravswell{extra}").with_name("gravswell")


def test_the_whole_way(command: Path, mark: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        whole = [command, "demo", "--keep"]
        demo = subprocess.Popen(whole, env=mark, stdout=output, stderr=output, start_new_session=True)
    wait_for("Ctrl-C ends it", demo, log)
    shown = log.read_text().partition("In another terminal:\n")[2].splitlines()[:2]
    found = subprocess.run(["bash", "-c", "\n".join(shown)], capture_output=True, text=True, check=True, env=mark)
    assert re.search(r"^inferenceserver\S*/digits +models +1 +2 +2 ", found.stdout, re.M), found.stdout
    assert len(re.findall(r"^pod/digits-\S+ +2/2 +Running", found.stdout, re.M)) == 2, found.stdout
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=120) == 0, log.read_text()[-3000:]
    said = log.read_text()
    for words in (
        "version 1, verified in ONNX Runtime against scikit-learn",
        "export the next version, no shapes given",
        "digits/config.pbtxt",
        "equal to the framework's",
        "Simulated here:",
        "kubectl apply -f examples/",
        "no request failed",
        "the test set through both replicas",
        "nothing is left: no object, no pod, no process",
        "Where ",
    ):
        assert words in said
    [excerpt] = re.findall(r"^```\n((?:✓ .*\n)+)```$", (ROOT / "README.md").read_text(), re.M)
    for line in excerpt.splitlines():
        assert f"{line.partition(' · ')[0]} · " in said, "the README shows another demo"
    for kind in ("GPUNodePool", "ModelRepository", "InferenceServer", "Model"):
        assert re.search(rf"^{kind} .*True", said, re.M), f"{kind} is not shown Ready"
    assert "\x1b" not in said, "escape sequences in a pipe"
    log.unlink()
    assert not list(tmp_path.iterdir()), "the demo left files behind"


def test_without_a_cluster_pytorch_does_the_same(mark: dict[str, str], tmp_path: Path) -> None:
    repository = tmp_path / "kept"
    done = run_demo(mark, "--no-cluster", "--framework", "torch", "--directory", str(repository))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "verified in ONNX Runtime against torch" in done.stdout
    assert "equal to the framework's" in done.stdout
    assert (repository / "digits" / "2" / "model.onnx").is_file()


def test_interrupted_it_cleans_up(mark: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        demo = subprocess.Popen(DEMO, env=mark, stdout=output, stderr=output, start_new_session=True)
    wait_for("kubectl apply -f examples/", demo, log)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=120) != 0
    assert "Traceback" not in log.read_text()
    log.unlink()
    assert not list(tmp_path.iterdir()), "the demo left files behind"


def test_a_folder_with_something_in_it_is_left_alone(mark: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    done = run_demo(mark, "--no-cluster", "--directory", str(tmp_path))
    assert done.returncode == 4
    assert "no empty folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_kept_up_it_waits_for_ctrl_c(mark: dict[str, str], tmp_path: Path) -> None:
    log, repository = tmp_path / "demo.log", tmp_path / "kept"
    with log.open("wb") as output:
        command = [*DEMO, "--no-cluster", "--keep", "--directory", str(repository)]
        environment = mark | {"PYTHONIOENCODING": "ascii"}  # a terminal that lacks our characters
        demo = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    wait_for("Ctrl-C ends it", demo, log)
    assert demo.poll() is None
    kept = log.read_text().partition("Kept up:")[2]
    address = re.search(r"HTTP (\S+)", kept)
    assert address is not None
    with urllib.request.urlopen(f"http://{address[1]}/v2/models/digits/ready", timeout=30) as answer:
        assert answer.status == 200
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=120) == 0, log.read_text()[-3000:]
    assert (repository / "digits" / "2" / "model.onnx").is_file()


@pytest.mark.timeout(1200)  # for two demos
def test_on_a_cluster_of_the_users_without_gpus_it_goes_the_whole_way_and_leaves_nothing(mark: dict[str, str]) -> None:
    """As on kind: nodes that carry the example pool's label, and no GPU, so that there is no pool either."""
    with DevCluster(gpus=0) as cluster:
        there = ("--context", "gravswell-dev", "--kubeconfig", str(cluster.kubeconfig))
        cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
        cluster.kubectl("apply", "-f", str(ROOT / "examples/model.yaml"))
        done = run_demo(mark, *there)
        assert done.returncode == 4, done.stdout[-3000:] + done.stderr[-3000:]
        assert "has a Model digits already" in done.stderr
        assert "train for" not in done.stdout
        cluster.kubectl("delete", "-f", str(ROOT / "examples/model.yaml"), "-f", str(ROOT / "crds"))

        done = run_demo(mark, *there)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        before, said, after = done.stdout.partition("Without GPUs there: no ready node has nvidia.com/gpu.product=")
        assert said
        assert "train for" not in before
        for words in ("no request failed", "the test set through both replicas", "nothing is left"):
            assert words in after
        assert not re.search(r"^GPUNodePool ", after, re.M)
        assert "gravswell" not in cluster.kubectl("get", "customresourcedefinitions", "--output=name")


@pytest.mark.timeout(1800)  # for three demos
def test_what_a_cluster_of_the_users_lacks_is_said_at_once(mark: dict[str, str], tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "plane") as plane:
        context = yaml.safe_load(plane.kubeconfig.read_text())["current-context"]
        there = ["--context", context, "--kubeconfig", str(plane.kubeconfig)]
        done = run_demo(mark, *there)

        log = tmp_path / "demo.log"
        with log.open("wb") as output:
            command = [*DEMO, *there, "--repository-url", "pvc://models/demo"]
            demo = subprocess.Popen(command, env=mark, stdout=output, stderr=output, start_new_session=True)
        wait_for("train for", demo, log)
        second = run_demo(mark, *there, "--repository-url", "pvc://models/demo")  # before the first applies anything
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=120) != 0
        assert "gravswell-demo" not in plane.kubectl("get", "configmaps", "--namespace=default", "--output=name")
    assert second.returncode == 4, second.stdout[-3000:] + second.stderr[-3000:]
    assert f"a demo runs on this cluster already (process {demo.pid} on " in second.stderr
    assert "with InferenceServer digits, Model digits, ModelRepository models: wait for its end" in second.stderr
    assert "train for" not in second.stdout
    said = log.read_text().partition("train for")[0]
    assert "No operator is installed there:" in said
    assert "Without GPUs there:" in said
    assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-3000:]
    assert "--repository-url pvc://CLAIM/PATH" in done.stderr
    assert "train for" not in done.stdout


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A new cache, which has Triton and nothing else."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "triton").symlink_to(cache_dir() / "triton")
    return folder


def test_what_is_not_built_yet_is_built_while_the_first_chapters_run(
    cache: Path, mark: dict[str, str], tmp_path: Path
) -> None:
    """All of the control plane is there but its smallest program."""
    tools, log = tmp_path / "bin", tmp_path / "demo.log"
    tools.mkdir()
    there = ensure_binaries()
    places = {name: cache / PROGRAMS[name].path.relative_to(cache_dir()) for name in CONTROL_PLANE}
    missing = places.pop("etcd")
    for name, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(there[name])
    go = shutil.which("go") or str(Path(sys.executable).with_name("go"))
    (tools / "go").write_text(LATE_GO.format(bound=BOUND, log=shlex.quote(str(log)), go=shlex.quote(go)))
    (tools / "go").chmod(0o755)

    environment = mark | {"GRAVSWELL_CACHE": str(cache), "PATH": f"{tools}:{mark['PATH']}"}
    environment.pop(ASSETS_ENV, None)
    with log.open("wb") as output:
        demo = subprocess.Popen(DEMO, env=environment, stdout=output, stderr=output, start_new_session=True)
    assert demo.wait(timeout=BOUND) == 0, log.read_text()[-3000:]
    said = log.read_text()
    before, built, after = said.partition("✓ build the control plane (once)")
    assert built, said
    assert "equal to the framework's" in before
    assert "begun while the first chapters ran" not in said
    assert "nothing is left: no object, no pod, no process" in after
    assert missing.is_file()
    assert not missing.is_symlink()
    assert not list(tmp_path.glob("gravswell-demo-*")), "the demo left files behind"


def test_without_go_everything_that_needs_none_is_shown(cache: Path, mark: dict[str, str], tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "sh"):  # Triton's python backend starts its processes through a shell
        (tools / tool).symlink_to(f"/bin/{tool}")
    done = run_demo(mark | {"GRAVSWELL_CACHE": str(cache), "PATH": str(tools)})
    assert done.returncode == 9, done.stdout[-3000:] + done.stderr[-3000:]
    assert "equal to the framework's" in done.stdout
    assert "there is no `go` here" in done.stderr
    assert "KUBEBUILDER_ASSETS" in done.stderr
    assert "Traceback" not in done.stderr
