"""The node: containerd, kubelet, kube-proxy and kube-router on a :class:`Machine`, with a control plane beside them."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gravswell.errors import UnavailableError
from gravswell_operator.devcluster.binaries import Binaries
from gravswell_operator.devcluster.controlplane import ControlPlane
from gravswell_operator.devcluster.processes import Child
from gravswell_operator.devcluster.realnode.machine import ADDRESS, Machine
from gravswell_operator.devcluster.realnode.packages import CNI_PROGRAMS
from gravswell_operator.devcluster.realnode.staticimage import static_image

POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
PAUSE_IMAGE = "gravswell.dev/pause:1"
_SOCKET = "/run/containerd/containerd.sock"
_BOOTED = "containerd successfully booted"
"""What containerd logs when it has looked for what was running before; until then a kubelet that asks gives up."""
_ENFORCED = "sync iptables took"
"""What kube-router logs when it has written its rules."""

# restrict_oom_score_adj: a machine within a machine may not have the right to lower it. The shim's own folder is on
# the search path.
_CONTAINERD = """\
version = 3
root = "{directory}/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{directory}/registries"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni_programs}"]
    conf_dir = "{directory}/cni"
"""

# Routed, each pod by a link of its own: what comes back from a Service passes the node's rules, which a bridge would
# do with br_netfilter alone.
_CNI = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": False,
            "mtu": 1500,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni",
                "ranges": [[{"subnet": POD_RANGE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
    ],
}


class RealNode:
    """The node of ``control_plane``, which was started in ``machine``'s network and names this node.

    ``start`` returns when the node is Ready and holds its pods to NetworkPolicies. It ends with the machine.

    Args:
        machine: started.
        control_plane: started.
        binaries: those of ``REAL_NODE``.
        busybox: from :func:`node_packages`.

    Raises:
        UnavailableError: a program ended or was not ready in time; with the end of its log.
    """

    def __init__(self, machine: Machine, control_plane: ControlPlane, binaries: Binaries, *, busybox: Path) -> None:
        self.machine = machine
        self.directory = machine.directory / "node"
        self._control_plane = control_plane
        self._binaries = binaries
        self._busybox = busybox
        self._kubelet_since = datetime.now(UTC)

    @property
    def _registries(self) -> Path:
        """The folder in which containerd looks for where images of a registry come from, at each pull."""
        return self.directory / "registries"

    def start(self) -> None:
        """Start all of it; return when the node is Ready and NetworkPolicies are in force."""
        self._write_configuration()
        self._start_containerd()
        self.import_image(static_image(self.directory / "pause.tar", PAUSE_IMAGE, self._busybox, ["sleep", "inf"]))
        self._start_proxy()
        self.start_kubelet()
        self._start_policies()

    def restart(self) -> None:
        """Kill every process of the node, those of its pods too, and start it again; return as :meth:`start` does."""
        self.machine.kill()
        self._start_containerd()
        self._start_proxy()
        self.start_kubelet()
        self._start_policies()

    def import_image(self, archive: Path) -> None:
        """Give the node the images of a docker or OCI archive. Raises :class:`UnavailableError` with ctr's words."""
        self._run("ctr", f"--address={_SOCKET}", "--namespace=k8s.io", "images", "import", archive)

    def images(self) -> list[str]:
        """The names of the images that the node has."""
        return self._run("ctr", f"--address={_SOCKET}", "--namespace=k8s.io", "images", "list", "--quiet").split()

    def is_used(self, image: str) -> bool:
        """Whether a container of the node is made of that image; those of a pod that has gone go a moment later."""
        listed = ("containers", "list", "--quiet", f"image=={image}")
        return bool(self._run("ctr", f"--address={_SOCKET}", "--namespace=k8s.io", *listed).strip())

    def remove_image(self, name: str) -> None:
        """Take an image from the node under all its names, and from its disk what nothing else there has."""
        images = ("ctr", f"--address={_SOCKET}", "--namespace=k8s.io", "images")
        listed = [line.split() for line in self._run(*images, "list").splitlines()[1:]]
        digests = {digest for other, _type, digest, *_ in listed if other == name}
        names = [other for other, _type, digest, *_ in listed if digest in digests]  # the kubelet has it by its digest
        self._run(*images, "remove", "--sync", *names)

    def pull_from(self, registry: str, url: str) -> None:
        """From now on pull images of ``registry``, such as ghcr.io, from the server at ``url``, such as a mirror."""
        folder = self._registries / registry
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(f'server = "{url}"\n[host."{url}"]\ncapabilities = ["pull", "resolve"]\n')

    def start_kubelet(self) -> None:
        """Start the kubelet; return when the node is Ready."""
        plane = self._control_plane
        self._kubelet_since = datetime.now(UTC).replace(microsecond=0)  # a heartbeat's time has no fractions
        kubelet = self._spawn(
            "kubelet",
            f"--config={self.directory / 'kubelet.json'}",
            f"--kubeconfig={plane.node_kubeconfig}",
            f"--root-dir={self.directory / 'kubelet'}",
            f"--hostname-override={plane.node_name}",
            f"--node-ip={ADDRESS}",
        )
        self.machine.wait_for(kubelet, self._is_ready)

    def _is_ready(self) -> bool:
        """Whether this kubelet says so: what one before it said stands there for most of a minute."""
        return any(
            condition["type"] == "Ready"
            and condition["status"] == "True"
            and datetime.fromisoformat(condition["lastHeartbeatTime"]) >= self._kubelet_since
            for node in self._control_plane.kubectl.items("nodes")
            for condition in node["status"].get("conditions", [])
        )

    def _start_containerd(self) -> None:
        child = self._spawn("containerd", f"--config={self.directory / 'containerd.toml'}")
        self.machine.wait_for(child, lambda: _BOOTED in child.log.read_text(errors="replace"))

    def _start_proxy(self) -> None:
        self._spawn(
            "kube-proxy",
            f"--kubeconfig={self._control_plane.directory / 'kube-proxy.kubeconfig'}",
            f"--hostname-override={self._control_plane.node_name}",
            "--proxy-mode=nftables",
            f"--cluster-cidr={POD_RANGE}",
            # The kernel's table belongs to the outer machine and stays as it is.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        )

    def _start_policies(self) -> None:
        child = self._spawn(
            "kube-router",
            f"--kubeconfig={self._control_plane.kubeconfig}",  # a node may not read all pods and policies
            f"--hostname-override={self._control_plane.node_name}",
            "--run-router=false",
            "--run-service-proxy=false",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--health-port=0",
            "--v=1",
        )
        self.machine.wait_for(child, lambda: _ENFORCED in child.log.read_text(errors="replace"))

    def _spawn(self, name: str, *flags: str) -> Child:
        return self.machine.spawn(name, [self._binaries[name], *flags], f"{name}.log", self._environment())

    def _environment(self) -> dict[str, str]:
        """With the runtime's shim on the search path, and without a proxy that would come between node and cluster."""
        shim = self._binaries["containerd-shim-runc-v2"].parent
        return {"PATH": f"{shim}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

    def _run(self, program: str, *arguments: str | Path) -> str:
        command = self.machine.command(self._binaries[program], *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=600, env=self._environment()
        )
        if done.returncode != 0:
            raise UnavailableError(f"{program} {arguments[-1]} failed on the node: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def _write_configuration(self) -> None:
        cni = self.directory / "cni"
        cni.mkdir(parents=True, exist_ok=True)
        (cni / "10-pods.conflist").write_text(json.dumps(_CNI))
        self._registries.mkdir(exist_ok=True)
        (self.directory / "containerd.toml").write_text(
            _CONTAINERD.format(directory=self.directory, socket=_SOCKET, pause=PAUSE_IMAGE, cni_programs=CNI_PROGRAMS)
        )
        (self.directory / "resolv.conf").write_text("")
        (self.directory / "kubelet.json").write_text(json.dumps(self._kubelet_configuration()))

    def _kubelet_configuration(self) -> dict[str, Any]:
        pki = self._control_plane.pki
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / "node.crt"),
            "tlsPrivateKeyFile": str(pki / "node.key"),
            "containerRuntimeEndpoint": f"unix://{_SOCKET}",
            "podLogsDir": str(self.directory / "pods"),
            "volumePluginDir": str(self.directory / "volume-plugins"),
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.directory / "resolv.conf"),
            # The limits of containers hold; the classes of pods and the node's own reserve have no groups of their own.
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            # A full disk of the outer machine is not this node's to clean up.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "nodeStatusUpdateFrequency": "4s",
        }


__all__ = ["DNS_ADDRESS", "PAUSE_IMAGE", "RealNode"]
