"""Where the API server is and who we are: the pod's own ServiceAccount, or a kubeconfig.

Credentials rotate. :func:`open_session` asks for them at every request, and what is loaded here knows how to read
itself anew; when that fails the last ones go on, and the API server judges them.
"""

import asyncio
import logging
import math
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from gravswell import __version__, addresses
from gravswell.errors import GravswellError, InvalidInputError, NotFoundError

FOLDER_ENV = "GRAVSWELL_SERVICEACCOUNT"
"""Names the folder of the pod's token where it cannot be the well-known one: a development node has no mount
namespaces, so that each pod's is at a place of its own."""
WELL_KNOWN_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")

RELOAD_SECONDS = 10.0
"""How long a pod's token is used before its file is read again; the kubelet rotates it minutes before it expires."""
RENEW_SECONDS = 60.0
"""How long a kubeconfig's user is used before the loader is asked for a fresh one: it reads a token file again, and
calls a plugin whose credential is about to expire."""
EARLY_SECONDS = 10.0
"""How long to wait, after credentials were refused and read anew, before that is done again."""

log = logging.getLogger(__name__)

Certificate = tuple[str, str | None]
"""A client certificate's file, and its key's."""

_Renew = Callable[[bool], Awaitable[tuple[str | None, Certificate | None]]]
"""Reads the ``Authorization`` header and the certificate anew; the flag says whether the last ones were refused."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an API server is, and how to tell that it is the one. Paths are of PEM files."""

    url: str
    ca_file: str | None = None
    ca_data: str | bytes | None = None
    """The authority's certificate itself, in place of its file."""
    server_name: str | None = None
    """The name to look for in its certificate, where that is not the address."""
    verified: bool = True
    """False: any certificate will do."""
    proxy: str | None = None


class Account:
    """Who we are to one API server: a client certificate, or a header that is read anew in time."""

    def __init__(
        self,
        endpoint: Endpoint,
        header: str | None = None,
        *,
        renew: _Renew | None = None,
        seconds: float = math.inf,
        certificate: Certificate | None = None,
    ) -> None:
        """``renew``: every ``seconds``, and after a 401."""
        self.endpoint = endpoint
        self.certificate = certificate
        self._header = header
        self._renew = renew
        self._seconds = seconds
        self._renewed = time.monotonic()
        self._early = -math.inf
        self._context: ssl.SSLContext | None = None
        self._shown: list[bytes] = []
        """What the certificate's files held for it."""

    @property
    def context(self) -> ssl.SSLContext:
        """How the next connection is opened; another one once the certificate is. To be had after :meth:`prepare`."""
        assert self._context is not None, "the account is used before it is prepared"
        return self._context

    def prepare(self) -> None:
        """Read the certificate's files. Blocks. Raises :class:`InvalidInputError` for what cannot be used."""
        shown = [] if self.certificate is None else [_content(file) for file in self.certificate if file]
        if self._context is None or shown != self._shown:
            self._context, self._shown = _context(self.endpoint, self.certificate), shown

    async def header(self) -> str | None:
        """The ``Authorization`` of the next request; None where a certificate, or nothing, says who we are."""
        if self._renew is not None and time.monotonic() - self._renewed >= self._seconds:
            await self._now(self._renew, refused=False)
        return self._header

    async def after_refusal(self, header: str | None) -> str | None:
        """Another one than ``header``, which a request was refused for, where there is one. Not twice at once."""
        now = time.monotonic()
        if self._renew is not None and self._header == header and now - self._early >= EARLY_SECONDS:
            self._early = now
            await self._now(self._renew, refused=True)
        return self._header if self._header != header else None

    async def _now(self, renew: _Renew, *, refused: bool) -> None:
        self._renewed = time.monotonic()  # before the wait: requests meanwhile go on with what there is
        try:
            self._header, self.certificate = await renew(refused)
            if self.certificate is not None:
                await asyncio.to_thread(self.prepare)
        except (GravswellError, aiohttp.ClientError, OSError, ValueError) as error:
            log.warning("the credentials for %s could not be renewed: %s", self.endpoint.url, error)


def account_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder with the pod's ``token``, ``ca.crt`` and ``namespace``."""
    return Path(environ.get(FOLDER_ENV) or WELL_KNOWN_FOLDER)


def pod_namespace(environ: Mapping[str, str] = os.environ) -> str:
    """The pod's namespace: ``POD_NAMESPACE`` when the pod sets it, else what is projected beside the token.

    Raises :class:`NotFoundError` outside a pod.
    """
    return environ.get("POD_NAMESPACE") or _read(account_folder(environ) / "namespace")


def in_cluster(environ: Mapping[str, str] = os.environ) -> Account:
    """The pod's own ServiceAccount, at the API server of the cluster that this process runs in.

    Raises :class:`NotFoundError` outside a pod (no token, or no ``KUBERNETES_SERVICE_HOST``).
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise NotFoundError(
            "KUBERNETES_SERVICE_HOST is not set, so this process runs in no pod; "
            "outside a cluster, use the options that need no API server"
        )
    folder = account_folder(environ)
    _read(folder / "ca.crt")

    async def renew(refused: bool) -> tuple[str, None]:
        del refused  # the file says what there is
        return bearer(), None

    def bearer() -> str:
        return f"Bearer {_read(folder / 'token')}"

    endpoint = Endpoint(f"https://{addresses.join(host, port)}", ca_file=str(folder / "ca.crt"))
    return Account(endpoint, bearer(), renew=renew, seconds=RELOAD_SECONDS)


async def from_kubeconfig(path: Path | None = None, context: str | None = None) -> Account:
    """The API server and user of a kubeconfig: of ``path``, else of ``KUBECONFIG``, else of ``~/.kube/config``.

    ``context`` is one of its contexts; None: the current one. Raises :class:`InvalidInputError` for a kubeconfig or
    context that cannot be used, and :class:`NotFoundError` where there is no such file.
    """
    # Half a second and 20 MB that no pod needs: an agent's start is on the way to a served model.
    from kubernetes.aio.client import Configuration  # noqa: PLC0415
    from kubernetes.aio.config import ConfigException, kube_config, load_kube_config  # noqa: PLC0415
    from yaml import YAMLError  # noqa: PLC0415

    if path is not None and not await asyncio.to_thread(path.exists):
        raise NotFoundError(f"there is no kubeconfig {path}; gravswell cluster up makes one")
    default = kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    if path is None and not await asyncio.to_thread(_any_exists, default):  # of which the library says other things
        missing = default or "(KUBECONFIG is empty)"
        raise NotFoundError(
            f"there is no kubeconfig {missing}; name one with --kubeconfig, or make a cluster with gravswell cluster up"
        )
    configuration = Configuration()
    try:
        loader: Any = await load_kube_config(  # type: ignore[no-untyped-call]  # the client's config module has no types
            config_file=str(path) if path is not None else None, context=context, client_configuration=configuration
        )
    except (ConfigException, YAMLError) as error:
        raise InvalidInputError(
            f"no usable kubeconfig: {error}; name one with --kubeconfig, or make a cluster with gravswell cluster up"
        ) from None

    async def renew(refused: bool) -> tuple[str | None, Certificate | None]:
        if refused:  # else the loader takes a plugin's credential for good until it expires
            vars(loader).pop("exec_plugin_expiry", None)
        try:
            await loader.load_and_set(configuration)
        except ConfigException as error:
            raise InvalidInputError(str(error)) from None
        return header(), certificate()

    def header() -> str | None:
        return configuration.api_key.get("BearerToken") or None

    def certificate() -> Certificate | None:
        return (configuration.cert_file, configuration.key_file) if configuration.cert_file else None

    endpoint = Endpoint(
        configuration.host,
        ca_file=configuration.ssl_ca_cert,
        ca_data=configuration.ca_cert_data,
        server_name=configuration.tls_server_name,
        verified=configuration.verify_ssl,
        proxy=configuration.proxy,
    )
    return Account(endpoint, header(), renew=renew, seconds=RENEW_SECONDS, certificate=certificate())


async def load(kubeconfig: Path | None = None, context: str | None = None) -> Account:
    """With neither argument: the pod's own account inside a cluster, and outside of one the user's kubeconfig.

    Raises as :func:`from_kubeconfig`.
    """
    if kubeconfig is None and context is None:
        try:
            return in_cluster()
        except NotFoundError:
            pass  # not in a pod: a person's machine
    return await from_kubeconfig(kubeconfig, context)


async def open_session(
    account: Account,
    *,
    program: str,
    traces: Sequence[aiohttp.TraceConfig] = (),
    around: Sequence[aiohttp.ClientMiddlewareType] = (),
) -> aiohttp.ClientSession:
    """An HTTP session that proves who we are with every request. ``program`` is what the audit log calls us.

    ``traces`` see each request; the middlewares ``around`` see answers as the caller gets them. A token and a client
    certificate may rotate meanwhile. Raises as :meth:`Account.prepare`.
    """
    endpoint = account.endpoint

    async def authenticate(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        header = await account.header()
        if header is not None:
            request.headers["Authorization"] = header
        # With another one, no connection is used on which an earlier certificate was shown.
        vars(request)["_ssl"] = context = account.context
        if endpoint.server_name:
            request.server_hostname = endpoint.server_name
        response = await send(request)
        if response.status == HTTPStatus.UNAUTHORIZED:
            fresh = await account.after_refusal(header)
            if fresh is not None or account.context is not context:  # the last ones were revoked before their time
                response.release()
                vars(request)["_ssl"] = account.context
                if fresh is not None:
                    request.headers["Authorization"] = fresh
                response = await send(request)
        return response

    await asyncio.to_thread(account.prepare)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=account.context),  # every watch holds one
        headers={"User-Agent": f"{program}/{__version__}", "Accept": "application/json"},
        middlewares=(*around, authenticate),
        trace_configs=list(traces),
        proxy=endpoint.proxy,
        read_bufsize=2**21,  # a page of a list, or one object of a watch, in few pieces
    )


def _context(endpoint: Endpoint, certificate: Certificate | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file, cadata=endpoint.ca_data)
    except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
        where = endpoint.ca_file or "in the kubeconfig"
        raise InvalidInputError(f"the authority of {endpoint.url}, {where}, cannot be used: {error}") from None
    if certificate is not None:
        try:
            context.load_cert_chain(*certificate)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"the client certificate {certificate[0]} cannot be used: {error}") from None
    if not endpoint.verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{file}, of the client certificate, cannot be read: {error.strerror}") from None


def _any_exists(paths: str) -> bool:
    """Whether one is there of the files that a variable such as ``KUBECONFIG`` lists."""
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path)


def _read(path: Path) -> str:
    try:
        content = path.read_text().strip()
    except OSError as error:
        raise NotFoundError(
            f"{path} cannot be read ({error.strerror}): this process runs in no pod, or its pod projects no "
            f"ServiceAccount token into this container; {FOLDER_ENV} names another folder"
        ) from None
    if not content:
        raise InvalidInputError(
            f"{path} is empty: the pod's projected ServiceAccount volume is broken; recreate the pod"
        )
    return content
