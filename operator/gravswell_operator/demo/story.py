"""The demo from its first line to its last, and what happens when a part of it cannot be had."""

import asyncio
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from gravswell import quiver as qv
from gravswell.errors import ConflictError, GravswellError, InvalidInputError, UnsupportedError
from gravswell.serving.triton import EmbeddedTriton, ensure_triton
from gravswell_operator.demo.backstage import Backstage
from gravswell_operator.demo.claim import claimed
from gravswell_operator.demo.cluster import serve_on_cluster, swept
from gravswell_operator.demo.digits import load_digits, trainer
from gravswell_operator.demo.fitting import Fitted, fitted
from gravswell_operator.demo.installing import (
    custom_resources,
    installed_operator,
    require_free_names,
    running_operator,
)
from gravswell_operator.demo.interruption import (
    first_error_counts,
    full_disk_told,
    interruptible,
    wait_for_interrupt,
)
from gravswell_operator.demo.local import ENTRY, Lab, classify, publish, show_repository
from gravswell_operator.demo.objects import examples
from gravswell_operator.demo.reach import require_free_ports
from gravswell_operator.demo.view import Story
from gravswell_operator.devcluster import BackgroundBuild
from gravswell_operator.devcluster.binaries import Progress as BuildProgress
from gravswell_operator.devcluster.binaries import ensure_binaries
from gravswell_operator.devcluster.kubectl import Kubectl
from gravswell_operator.names import LABEL_LOCAL_NODE
from gravswell_operator.runtime import DEFAULT_IMAGE

AT_ONCE = 1.0
"""Seconds within which the programs are there, if they are: what is built takes minutes."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    framework: str
    cluster: bool
    keep: bool
    directory: Path | None
    context: str | None
    kubeconfig: Path | None
    repository_url: str | None


def tell(story: Story, options: Options) -> None:
    """Run the demo. Everything that it starts ends with it, however it ends.

    Raises:
        UnsupportedError: a part does not exist here; what comes before it was shown.
        UnavailableError: the disk is full, a part did not start, or a request failed.
        ConflictError: the cluster or the folder has something by the demo's names.
    """
    started = time.monotonic()
    with interruptible(story), full_disk_told(), ExitStack() as stack:
        folder = stack.enter_context(_repository_folder(options))
        users = _users_cluster(story, options.context, options, stack) if options.context is not None else None
        build = stack.enter_context(BackgroundBuild()) if options.cluster and users is None else None
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gravswell-demo-")))
        begun = _begun(story, stack, build, scratch) if build is not None else None

        lab = _train_and_publish(story, options, folder)
        _serve(story, lab, required=users is None, hold=options.keep and not options.cluster)
        if build is not None:
            _serve_on_own_cluster(story, lab, build, begun, scratch, keep=options.keep)
        elif users is not None:
            _serve_on_users_cluster(story, lab, *users, scratch / "operator.log", options=options)
    story.say("")
    story.console.print(story.ledger(time.monotonic() - started))


def _train_and_publish(story: Story, options: Options, folder: Path) -> Lab:
    story.chapter("1. From a network to verified versions")
    with story.step("load scikit-learn's digits") as step:
        data = load_digits()
        step.note = f"{len(data.train_images)} images to train with, {len(data.test_images)} to test with"
    network = trainer(options.framework, data)
    repository = qv.ModelRepository(folder)
    repository.add(ENTRY, platform=qv.Platform.ONNX)
    lab = Lab(data, network, repository, folder, expected=data.test_images)
    publish(story, lab, epochs=4)
    publish(story, lab, epochs=20)
    show_repository(story, lab)
    return lab


def _serve(story: Story, lab: Lab, *, required: bool, hold: bool) -> None:
    """Serve with the embedded Triton; where it does not exist and is not ``required``, say so."""
    story.chapter("2. Served by the real Triton, on this machine's CPU")
    try:
        with story.step("have Triton", spinner=False) as step, story.progress() as show:
            ensure_triton(progress=show)
            step.note = "NVIDIA's server from its Python wheel, in the user's cache"
    except UnsupportedError as error:
        if required:  # the development cluster's pods are served by it too
            raise
        story.say(f"[yellow]Skipped:[/] {escape(str(error))}")
        return
    with ExitStack() as stack:
        with story.step("start it on the repository") as step:
            server = stack.enter_context(EmbeddedTriton(lab.directory))
            step.note = f"gRPC {server.grpc_address}, HTTP {server.http_address}"
        asyncio.run(classify(story, lab, [server.grpc_address], title="the test set, eight images a request"))
        if hold:
            where = (f"gRPC {server.grpc_address}", f"HTTP {server.http_address}", f"repository {lab.directory}")
            wait_for_interrupt(story, "Kept up:", *where)


def _begun(story: Story, stack: ExitStack, build: BackgroundBuild, scratch: Path) -> Backstage | None:
    """What the last chapter needs, begun, where nothing has to be built for it: it starts while the first ones run."""
    if not build.done_within(AT_ONCE):
        return None
    try:
        require_free_ports()
        stage = Backstage(build.wait(), scratch)
        stack.enter_context(_ended(story, stage))
        stage.begin()
    except (GravswellError, OSError):
        return None  # told in the chapter that needs it: the others do not
    return stage


def _serve_on_own_cluster(
    story: Story, lab: Lab, build: BackgroundBuild, begun: Backstage | None, scratch: Path, *, keep: bool
) -> None:
    story.chapter("3. Served by Kubernetes: a real control plane, on this machine")
    if begun is None:
        require_free_ports()
    if not build.done:
        with story.step("build the control plane (once)", spinner=False), story.progress() as show:
            while not build.done:
                if build.latest is not None:
                    show(*_in_words(build.latest))
                time.sleep(0.2)
    with _backstage(story, begun or Backstage(build.wait(), scratch), is_begun=begun is not None) as stage:
        with story.step("start etcd, kube-apiserver, controllers, scheduler and the local node") as step:
            cluster = stage.cluster.result()
            step.note = "with the custom resources of crds/"
        story.say(
            "[yellow]Simulated here:[/] the GPUs. They are counted and scheduled, and the models run on the CPU. "
            "Pods are real processes of this machine, on addresses of their own."
        )
        with story.step("start the operator") as step:
            operator = stage.operator.result()
            step.note = f"process {operator.pid}, log in {stage.log}"

        def hold() -> None:
            kubectl = "kubectl" if shutil.which("kubectl") else shlex.quote(str(cluster.kubectl.path))
            export = f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}"
            wait_for_interrupt(story, "Kept up. In another terminal:", export, f"{kubectl} get gravswell,pods")

        serve_on_cluster(
            story,
            lab,
            cluster.kubectl,
            Fitted(examples()),
            lab.directory.as_uri(),
            still_well=operator.require_running,
            hold=hold if keep else None,
        )


@contextmanager
def _backstage(story: Story, stage: Backstage, *, is_begun: bool) -> Iterator[Backstage]:
    with _ended(story, stage, "stop them"):
        if is_begun:
            story.say("[dim]begun while the first chapters ran; the seconds are what was left of it[/]")
        else:
            stage.begin()
        yield stage


@contextmanager
def _ended(story: Story, stage: Backstage, step: str | None = None) -> Iterator[None]:
    """Let it go with the block, told as a step of that name; of two errors the block's own is told."""
    shown = story.step(step) if step is not None else nullcontext()
    try:
        yield
    except BaseException:
        with first_error_counts(story, "parts of the development cluster"), shown:
            stage.end()
        raise
    with shown:
        stage.end()


def _users_cluster(story: Story, context: str, options: Options, stack: ExitStack) -> tuple[Kubectl, Fitted]:
    """The user's own cluster, asked before anything else is begun, and what of the examples it can run.

    Until ``stack`` is closed, no other demo can begin there.
    """
    kubectl = Kubectl(_users_kubectl(story), options.kubeconfig, context)
    with story.step(f"reach the cluster of the context {context}"):
        kubectl("get", "--raw=/readyz")
    nodes = kubectl.items("nodes")
    local = any(node["metadata"].get("labels", {}).get(LABEL_LOCAL_NODE) == "true" for node in nodes)
    if not options.repository_url and not local:
        raise InvalidInputError(
            f"no node of the context {context} can read folders of this machine: put the demo's repository into a "
            f"volume that both can (--directory FOLDER here, --repository-url pvc://CLAIM/PATH there), or leave "
            f"--context out for a development cluster"
        )
    if not local and installed_operator(kubectl) is None:
        story.say(
            "[yellow]No operator is installed there:[/] one will run on this machine, and the pods that it makes need "
            f"the image {DEFAULT_IMAGE}; where that cannot be pulled, install the chart with an image of yours first"
        )
    fit = fitted(examples(), nodes)
    if fit.without:
        story.say(f"[yellow]Without GPUs there:[/] {escape(fit.without)}")
    stack.enter_context(claimed(story, kubectl, fit.manifests))
    require_free_names(kubectl, fit.manifests)
    return kubectl, fit


def _users_kubectl(story: Story) -> Path:
    """The user's own kubectl, which is of their cluster's age and has its credential plugins; else one is built."""
    found = shutil.which("kubectl")
    if found is not None:
        return Path(found)
    with story.step("have kubectl", spinner=False), story.progress() as show:
        return ensure_binaries(names=["kubectl"], progress=lambda at: show(*_in_words(at)))["kubectl"]


def _in_words(at: BuildProgress) -> tuple[str, int, int]:
    return f"{at.action} {at.program} ({at.index} of {at.total})", at.index - 1, at.total


def _serve_on_users_cluster(
    story: Story, lab: Lab, kubectl: Kubectl, fit: Fitted, log: Path, *, options: Options
) -> None:
    story.chapter(f"3. Served by Kubernetes: the cluster of the context {options.context}")
    url = options.repository_url or lab.directory.as_uri()

    def hold() -> None:
        wait_for_interrupt(story, f"Kept up in the context {options.context}.")

    with custom_resources(story, kubectl):
        require_free_names(kubectl, fit.manifests)
        with running_operator(story, kubectl, log) as still_well, swept(story, kubectl, fit.manifests):
            serve_on_cluster(story, lab, kubectl, fit, url, still_well=still_well, hold=hold if options.keep else None)


@contextmanager
def _repository_folder(options: Options) -> Iterator[Path]:
    """The folder that the user named, which stays; or one that goes when the demo ends."""
    if options.directory is not None:
        folder = options.directory.resolve()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConflictError(
                f"{folder} is there and is no empty folder; the demo makes a repository of its own: name a new folder"
            )
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gravswell-demo-") as scratch:
        yield Path(scratch) / "models"
