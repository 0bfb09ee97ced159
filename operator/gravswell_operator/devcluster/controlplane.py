"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager, kube-scheduler."""

import secrets
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Self

from gravswell.errors import GravswellError, UnavailableError
from gravswell_operator.devcluster.binaries import CONTROL_PLANE, Binaries, ensure_binaries
from gravswell_operator.devcluster.certificates import Authority, write_key_pair
from gravswell_operator.devcluster.kubeconfig import write_certificate_kubeconfig, write_token_kubeconfig
from gravswell_operator.devcluster.processes import Child, tail, wait_until

HOST = "127.0.0.1"
NODE_NAME = "gravswell-local"
"""The name of the local node; its certificate is issued with the control plane's."""

_ATTEMPTS = 3  # another program may take a free port between our look and the server's bind
_READY_TIMEOUT = 120.0  # seconds; three are usual, a machine that compiles at the same time needs many more
_CLIENT_LIMITS = ("--kube-api-qps=1000", "--kube-api-burst=2000")  # the defaults, 20 to 50/s, would be the bottleneck


class ControlPlane:
    """The four servers, their certificates and an administrator's kubeconfig, all in ``directory``.

    ``start`` returns when the API server is ready and the controllers have made the default ServiceAccount, so that a
    pod can be created at once. Start and stop it from a thread that outlives it: the servers end with that thread.

    Args:
        directory: an empty or absent folder; etcd's data, certificates, kubeconfigs and ``logs/`` go there.
        binaries: from :func:`ensure_binaries`; found or built when None.
    """

    def __init__(self, directory: Path, *, binaries: Binaries | None = None) -> None:
        self.directory = directory
        self._binaries = binaries
        self._children: list[Child] = []
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
    def logs(self) -> Path:
        """Folder with one log file for each server."""
        return self.directory / "logs"

    @property
    def server_url(self) -> str:
        """The API server's address, ``https://127.0.0.1:PORT``."""
        return f"https://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the servers and wait until they are ready.

        Raises:
            UnavailableError: one of them ended or did not become ready; with the end of its log.
        """
        self._binaries = self._binaries or ensure_binaries()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start()
            except UnavailableError as error:
                self.stop()
                if "address already in use" not in str(error) or attempt == _ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """Stop the servers, the API server before its etcd. Bounded, idempotent."""
        while self._children:
            self._children.pop().stop(timeout=10)

    def require_running(self) -> None:
        """Raise :class:`UnavailableError` with a log's end if one of the servers has ended."""
        for child in self._children:
            child.require_running()

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120.0) -> str:
        """Run the real kubectl as administrator and return what it printed.

        Raises:
            GravswellError: with kubectl's own words, if it failed and ``check`` is set.
        """
        assert self._binaries is not None, "the control plane was not started"
        done = subprocess.run(
            [self._binaries["kubectl"], "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise GravswellError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _start(self) -> None:
        etcd_port, etcd_peer_port, self._port = _free_ports(3)
        self._write_credentials()
        self._start_etcd(etcd_port, etcd_peer_port)
        self._start_api_server(etcd_port)
        self._start_controllers()

    def _write_credentials(self) -> None:
        authority = Authority(self.pki)
        authority.issue("etcd", "etcd", hosts=[HOST])
        hosts = [HOST, "localhost", "10.96.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        authority.issue("apiserver", "kube-apiserver", hosts=hosts)
        authority.issue("kubelet-client", "kube-apiserver-kubelet-client")
        authority.issue("node", f"system:node:{NODE_NAME}", groups=["system:nodes"], hosts=[HOST, NODE_NAME])
        write_key_pair(self.pki / "service-account")
        for component in ("kube-controller-manager", "kube-scheduler"):
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

    def _spawn(self, program: str, *flags: str) -> Child:
        assert self._binaries is not None
        log = self.logs / f"{program}.log"
        log.unlink(missing_ok=True)
        child = Child(program, [self._binaries[program], *flags], log=log)
        self._children.append(child)
        return child

    def _start_etcd(self, port: int, peer_port: int) -> None:
        peer = f"https://{HOST}:{peer_port}"
        url = f"https://{HOST}:{port}"
        pki = self.pki
        child = self._spawn(
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
            child.require_running()
            with socket.socket() as probe:
                return probe.connect_ex((HOST, port)) == 0

        self._wait(child, answers)

    def _start_api_server(self, etcd_port: int) -> None:
        pki = self.pki
        child = self._spawn(
            "kube-apiserver",
            f"--etcd-servers=https://{HOST}:{etcd_port}",
            f"--etcd-cafile={pki / 'ca.crt'}",
            f"--etcd-certfile={pki / 'etcd.crt'}",
            f"--etcd-keyfile={pki / 'etcd.key'}",
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            "--endpoint-reconciler-type=none",  # endpoints refuse loopback addresses, and nothing here needs them
            f"--secure-port={self._port}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--token-auth-file={pki / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'service-account.pub'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--shutdown-delay-duration=0s",
        )
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))

        def ready() -> bool:
            child.require_running()
            return self._get("/readyz", context) == 200

        self._wait(child, ready)

    def _start_controllers(self) -> None:
        manager = self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.directory / 'kube-controller-manager.kubeconfig'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.pki / 'service-account.key'}",
            f"--root-ca-file={self.pki / 'ca.crt'}",
            *_CLIENT_LIMITS,
        )
        scheduler = self._spawn(
            "kube-scheduler",
            f"--kubeconfig={self.directory / 'kube-scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--secure-port=0",
            *_CLIENT_LIMITS,
        )
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))

        def made_the_default_account() -> bool:
            manager.require_running()
            scheduler.require_running()
            return all(
                self._get(f"/api/v1/namespaces/default/{path}", context) == 200
                for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt")
            )

        self._wait(manager, made_the_default_account)

    def _wait(self, child: Child, ready: Callable[[], bool]) -> None:
        try:
            wait_until(ready, what=child.name, timeout=_READY_TIMEOUT)
        except UnavailableError as error:
            if child.running:
                raise UnavailableError(f"{error}; {tail(child.log)}") from error
            raise

    def _get(self, path: str, context: ssl.SSLContext) -> int:
        """Return the status of a GET as administrator; 0 while nothing answers."""
        request = urllib.request.Request(  # noqa: S310  our own https address
            self.server_url + path, headers={"Authorization": f"Bearer {self._token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310  as above
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def _free_ports(count: int) -> list[int]:
    """Return ``count`` different ports that were free a moment ago."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


__all__ = ["CONTROL_PLANE", "HOST", "NODE_NAME", "ControlPlane"]
