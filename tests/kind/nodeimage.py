"""A node image for kind, of Debian's packages, files of kind's own module and programs built from Go modules.

kind's image comes from a registry, and so does the base on which ``kind build node-image`` builds one. This one differs
in where programs come from, in how the control plane's images get in (imported at the start) and in the pods' network
(the node's own unit in place of kindnet); kind's entry point, units and limits are the module's files.
"""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
from hashlib import sha256
from pathlib import Path

from gravswell.cache import cache_dir, locked
from gravswell_operator.devcluster import ensure_binaries
from gravswell_operator.devcluster.binaries import CONTROL_PLANE, COREDNS, KUBERNETES, REAL_NODE
from gravswell_operator.devcluster.bootstrap import bootstrapping
from gravswell_operator.devcluster.debian import ensure_packages
from gravswell_operator.devcluster.gobuild import Module, Program, build, module_folder
from gravswell_operator.devcluster.processes import die_with
from gravswell_operator.devcluster.realnode import node_packages, static_image

KIND = Module("kind", "sigs.k8s.io/kind", "v0.33.0")
_FILES = Path(__file__).with_name("node")
_SUITE = "bookworm"
_PACKAGES = (
    "systemd,systemd-sysv,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,procps,jq,bash,"
    "runc,containernetworking-plugins,hostname,socat"
)
_OPTIONS = (
    "--variant=minbase",
    f"--include={_PACKAGES}",
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")),
)
_OWN_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
"""What mmdebstrap mounts and starts ends with it, however it ends."""
_WANTED_UNITS = ("containerd", "kubelet", "undo-mount-hacks", "images", "pod-network")
_COREDNS_PLUGINS = frozenset(
    {"cache", "errors", "forward", "health", "kubernetes", "loadbalance", "loop", "metrics", "ready", "reload"}
)
"""What kubeadm's configuration of CoreDNS names."""


def program(name: str) -> Path:
    """``kind``, ``kubeadm`` or a ``coredns`` that knows kubeadm's configuration, built if need be."""
    plugins = sha256(" ".join(sorted(_COREDNS_PLUGINS)).encode()).hexdigest()[:8]
    coredns = Module(f"coredns-for-kubeadm-{plugins}", COREDNS.path, COREDNS.version, change=_keep_plugins)
    programs = {
        "kind": Program("kind", KIND, "sigs.k8s.io/kind"),
        "kubeadm": Program("kubeadm", KUBERNETES, "k8s.io/kubernetes/cmd/kubeadm"),
        "coredns": Program("coredns", coredns, COREDNS.path, room=1_500_000_000),
    }
    return build(programs[name], cancelled=threading.Event(), tick=lambda _: None)


def _keep_plugins(source: Path) -> None:
    listing = source / "core/plugin/zplugin.go"
    own = re.compile(r'\t_ "(?:github.com/coredns/coredns/plugin/)?(.+)"')
    lines = listing.read_text().splitlines(keepends=True)
    listing.write_text("".join(x for x in lines if (found := own.match(x)) is None or found[1] in _COREDNS_PLUGINS))


def write_node(archive: Path) -> Path:
    """Write the root file system of a node to ``archive``, for ``docker import``, and return that.

    It is put together beside that; a failure leaves it there.
    """
    debian = _debian()
    root = archive.with_suffix(".root")
    root.mkdir(parents=True)
    subprocess.run(["tar", "-C", root, "-xf", debian], check=True, timeout=300)
    _add_kinds_files(root)
    _add_our_files(root)
    _add_programs(root)
    _add_images(root / "kind/images", debian)
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True, timeout=300)
    shutil.rmtree(root)
    return archive


def _debian() -> Path:
    key = sha256("\0".join((_SUITE, *_OPTIONS)).encode()).hexdigest()[:12]
    archive = cache_dir() / "kind-node" / f"debian-{key}.tar"
    with locked(archive):
        if not archive.exists():
            ensure_packages({"mmdebstrap": "mmdebstrap"}, what="a node image for kind")
            archive.parent.mkdir(parents=True, exist_ok=True)
            new, scratch = archive.with_suffix(".new.tar"), archive.with_suffix(".tmp")
            shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
            scratch.mkdir()
            command, environment = bootstrapping(_SUITE, new, _OPTIONS, scratch)
            own = [*_OWN_NAMESPACES, *command]
            subprocess.run(own, check=True, timeout=1200, env=environment, preexec_fn=die_with(os.getpid()))
            shutil.rmtree(scratch)
            new.replace(archive)
    return archive


def _add_kinds_files(root: Path) -> None:
    files = module_folder(KIND) / "images/base/files"
    for folder in ("etc", "kind", "usr"):
        for file in (files / folder).rglob("*"):
            if file.is_file():
                _put(file, root / file.relative_to(files), run="bin" in file.parts)
    units = root / "etc/systemd/system"
    # As kind's own build has it: nothing starts but what a node is for, and nothing sets what is the whole kernel's.
    for folder in ("multi-user", "local-fs", "basic"):
        shutil.rmtree(root / f"usr/lib/systemd/system/{folder}.target.wants", ignore_errors=True)
    for name in ("systemd-udevd", "initctl"):
        for link in (root / "usr/lib/systemd/system/sockets.target.wants").glob(f"*{name}*"):
            link.unlink()
    (root / "usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service").unlink(missing_ok=True)
    for wants in units.glob("*.wants"):
        shutil.rmtree(wants)
    (units / "systemd-binfmt.service").symlink_to("/dev/null")
    for file in (root / "usr/lib/sysctl.d").glob("*"):
        file.unlink()
    with (root / "etc/systemd/journald.conf").open("a") as file:
        file.write("ReadKMsg=no\n")


def _add_our_files(root: Path) -> None:
    units = root / "etc/systemd/system"
    _put(_FILES / "containerd.toml", root / "etc/containerd/config.toml")
    _put(_FILES / "default-cni.yaml", root / "kind/manifests/default-cni.yaml")
    _put(_FILES / "images.service", units / "images.service")
    _put(_FILES / "pod-network.service", units / "pod-network.service")
    _put(_FILES / "kubelet.conf", units / "kubelet.service.d/12-own-tunables.conf")
    for name in ("pod-network", "own-tunables"):
        _put(_FILES / name, root / "kind/bin" / name, run=True)
    (root / "kind/version").write_text(KUBERNETES.version)
    with (root / "etc/default/kubelet").open("a") as file:
        file.write(" --fail-cgroupv1=false\n")
    wants = units / "multi-user.target.wants"
    wants.mkdir()
    for name in _WANTED_UNITS:
        (wants / f"{name}.service").symlink_to(f"/etc/systemd/system/{name}.service")
    (root / "etc/kubernetes/manifests").mkdir(parents=True)
    (root / "etc/cni/net.d").mkdir(parents=True, exist_ok=True)


def _add_programs(root: Path) -> None:
    binaries = ensure_binaries(names=[*REAL_NODE, "kubectl"])
    for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
        _put(binaries[name], root / "usr/local/bin" / name, run=True)
    for name in ("kubelet", "kubectl"):
        _put(binaries[name], root / "usr/bin" / name, run=True)
    _put(program("kubeadm"), root / "usr/bin/kubeadm", run=True)
    shutil.copytree(root / "usr/lib/cni", root / "opt/cni/bin")


def _add_images(folder: Path, debian: Path) -> None:
    """The control plane's images by kubeadm's names, each of one program; kube-proxy's on Debian, for iptables."""
    listed = [program("kubeadm"), "config", "images", "list", f"--kubernetes-version={KUBERNETES.version}"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    binaries = ensure_binaries(names=[*CONTROL_PLANE, "kube-proxy"])
    for name in names:
        short = name.rpartition("/")[2].partition(":")[0]
        if short == "kube-proxy":
            _debian_image(folder / "kube-proxy.tar", name, binaries["kube-proxy"], debian)
        elif short != "pause":
            path = program("coredns") if short == "coredns" else binaries[short]
            static_image(folder / f"{short}.tar", name, path, user="0:0")
    static_image(folder / "pause.tar", "registry.k8s.io/pause:3.10", node_packages(), ["sleep", "inf"], user="0:0")


def _debian_image(archive: Path, name: str, path: Path, debian: Path) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(path, f"usr/local/bin/{path.name}")
    with debian.open("rb") as file:
        digests = [sha256(file.read()).hexdigest(), sha256(layer.getvalue()).hexdigest()]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["debian.tar", "layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        tar.add(debian, "debian.tar")
        for inside, data in (
            ("layer.tar", layer.getvalue()),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(inside)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def _put(source: Path, target: Path, *, run: bool = False) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if run else 0o644)
