"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager, kube-scheduler."""

import secrets
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from gravswell_operator.devcluster.binaries import CONTROL_PLANE, Binaries, ensure_binaries
from gravswell_operator.devcluster.certificates import Authority, write_key_pair
from gravswell_operator.devcluster.kubeconfig import write_certificate_kubeconfig, write_token_kubeconfig
from gravswell_operator.devcluster.kubectl import Kubectl, install_definitions
from gravswell_operator.devcluster.processes import Child, Servers

HOST = "127.0.0.1"
NODE_NAME = "gravswell-local"
"""The name of the local node; its certificate is issued with the control plane's."""
_KUBERNETES_SERVICE = "10.96.0.1"  # the first address of the Services' range

_CLIENT_LIMITS = ("--kube-api-qps=1000", "--kube-api-burst=2000")  # the defaults, 20 to 50/s, would be the bottleneck


class ControlPlane(Servers):
    """The four servers, their certificates and an administrator's kubeconfig, all in ``directory``.

    ``start`` returns when the API server is ready and the controllers have made the default ServiceAccount, so that a
    pod can be created at once. ``stop`` ends them at once, as a crash would.

    Args:
        directory: an empty or absent folder; etcd's data, certificates, kubeconfigs and ``logs/`` go there.
        binaries: from :func:`ensure_binaries`; found or built when None.
        address: where the API server listens. Where it is no loopback address, pods reach the API server by the
            Service ``kubernetes`` too.
        node_name: whom the node's certificate is for.
        definitions: a file of custom resource definitions, which are there before the controllers start. Of those that
            come later the garbage collector hears within 30 seconds, and until then, or longer, it leaves what belonged
            to objects that were deleted.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Binaries | None = None,
        address: str = HOST,
        node_name: str = NODE_NAME,
        definitions: Path | None = None,
    ) -> None:
        # Three seconds are usual; a machine that compiles at the same time needs many more. They are ended at once:
        # for what they would finish first there is no reader, and etcd does not wait for the disk in any case.
        super().__init__(directory / "logs", ready_timeout=120.0, stop_timeout=0.0)
        self.directory = directory
        self.address = address
        self.node_name = node_name
        self._binaries = binaries
        self._definitions = definitions
        self._port = 0
        self._token = secrets.token_urlsafe(32)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig (mode 0600, stands alone)."""
        return self.directory / "kubeconfig"

    @property
    def node_kubeconfig(self) -> Path:
        """The local node's kubeconfig, with a node's rights and no more (Node authorizer)."""
        return self.directory / "node.kubeconfig"

    @property
    def pki(self) -> Path:
        """Folder of the certificates: ``ca.crt``, ``node.crt``, ``node.key``, ..."""
        return self.directory / "pki"

    @property
    def server_url(self) -> str:
        """The API server's address, ``https://127.0.0.1:PORT`` by default."""
        return f"https://{self.address}:{self._port}"

    @property
    def kubectl(self) -> Kubectl:
        """The real kubectl, as administrator: ``control_plane.kubectl("get", "nodes")``."""
        assert self._binaries is not None, "the control plane was not started"
        return Kubectl.administrator(self._binaries["kubectl"], self.kubeconfig)

    def _start(self) -> None:
        self._binaries = self._binaries or ensure_binaries()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._port, etcd_port = self._free_port(self.address), self._free_port(HOST)
        self._write_credentials()
        self._start_etcd(etcd_port, self._free_port(HOST))
        self._start_api_server(etcd_port)
        if self._definitions is not None:
            self._install(self._definitions)
        self._start_controllers()

    def _write_credentials(self) -> None:
        authority = Authority(self.pki)
        authority.issue("etcd", "etcd", hosts=[HOST])
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        authority.issue("apiserver", "kube-apiserver", hosts=[self.address, _KUBERNETES_SERVICE, *names])
        authority.issue("front-proxy", "front-proxy-client")
        authority.issue("kubelet-client", "kube-apiserver-kubelet-client", groups=["system:masters"])
        node = f"system:node:{self.node_name}"
        authority.issue("node", node, groups=["system:nodes"], hosts=[self.address, self.node_name])
        write_key_pair(self.pki / "service-account")
        for component in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            authority.issue(component, f"system:{component}")
            write_certificate_kubeconfig(
                self.directory / f"{component}.kubeconfig",
                server=self.server_url,
                authority=authority.certificate,
                client=self.pki / component,
            )
        write_certificate_kubeconfig(
            self.node_kubeconfig,
            server=self.server_url,
            authority=authority.certificate,
            client=self.pki / "node",
        )
        tokens = self.pki / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f"{self._token},gravswell-admin,gravswell-admin,system:masters\n")
        write_token_kubeconfig(
            self.kubeconfig, server=self.server_url, authority=authority.certificate, token=self._token
        )

    def _run(self, program: str, *flags: str) -> Child:
        assert self._binaries is not None
        return self._spawn(program, [self._binaries[program], *flags], log=f"{program}.log")

    def _start_etcd(self, port: int, peer_port: int) -> None:
        peer = f"https://{HOST}:{peer_port}"
        url = f"https://{HOST}:{port}"
        pki = self.pki
        child = self._run(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            "--name=default",
            "--unsafe-no-fsync",  # the data lives as long as the cluster; a machine that crashes takes both
            "--log-level=warn",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--client-cert-auth",
            "--peer-client-cert-auth",
            *(
                f"--{prefix}{flag}={pki / file}"
                for prefix in ("", "peer-")
                for flag, file in (("cert-file", "etcd.crt"), ("key-file", "etcd.key"), ("trusted-ca-file", "ca.crt"))
            ),
        )

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((HOST, port)) == 0

        self._wait(child, answers)

    def _start_api_server(self, etcd_port: int) -> None:
        pki = self.pki
        child = self._run(
            "kube-apiserver",
            f"--etcd-servers=https://{HOST}:{etcd_port}",
            f"--etcd-cafile={pki / 'ca.crt'}",
            f"--etcd-certfile={pki / 'etcd.crt'}",
            f"--etcd-keyfile={pki / 'etcd.key'}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            # Endpoints refuse loopback addresses, and nothing there needs them.
            *(["--endpoint-reconciler-type=none"] if self.address == HOST else []),
            f"--secure-port={self._port}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--token-auth-file={pki / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",  # as every installer has it: drivers and device plugins are such pods
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'service-account.pub'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--shutdown-delay-duration=0s",
            # What APIs of others, such as those of metrics, know requests by that it hands on to them.
            f"--requestheader-client-ca-file={pki / 'ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy.key'}",
        )
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))

        self._wait(child, lambda: self._get("/readyz", context) == 200)

    def _install(self, definitions: Path) -> None:
        manifests = definitions.read_text()
        names = [document["metadata"]["name"] for document in yaml.safe_load_all(manifests)]
        install_definitions(self.kubectl, manifests, names, still_well=self.require_running)

    def _start_controllers(self) -> None:
        manager = self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.directory / 'kube-controller-manager.kubeconfig'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.pki / 'service-account.key'}",
            f"--root-ca-file={self.pki / 'ca.crt'}",
            f"--flex-volume-plugin-dir={self.directory / 'volume-plugins'}",  # it makes one below /usr otherwise
            "--horizontal-pod-autoscaler-sync-period=5s",  # the default, 15s, is made for clusters of many thousands
            *_CLIENT_LIMITS,
        )
        self._run(
            "kube-scheduler",
            f"--kubeconfig={self.directory / 'kube-scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--secure-port=0",
            *_CLIENT_LIMITS,
        )
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))

        def made_the_default_account() -> bool:
            return all(
                self._get(f"/api/v1/namespaces/default/{path}", context) == 200
                for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt")
            )

        self._wait(manager, made_the_default_account)

    def _get(self, path: str, context: ssl.SSLContext) -> int:
        """Return the status of a GET as administrator; 0 while nothing answers."""
        request = urllib.request.Request(  # noqa: S310  our own https address
            self.server_url + path, headers={"Authorization": f"Bearer {self._token}"}
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # loopback is not behind the proxy that the user's environment may name
            urllib.request.HTTPSHandler(context=context),
        )
        try:
            with opener.open(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


__all__ = ["CONTROL_PLANE", "HOST", "NODE_NAME", "ControlPlane"]
