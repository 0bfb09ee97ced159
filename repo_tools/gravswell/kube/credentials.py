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
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from yaml import YAMLError

from gravswell import __version__
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


def account_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder with the pod's ``token``, ``ca.crt`` and ``namespace``."""
    return Path(environ.get(FOLDER_ENV) or WELL_KNOWN_FOLDER)


def pod_namespace(environ: Mapping[str, str] = os.environ) -> str:
    """The pod's namespace: ``POD_NAMESPACE`` when the pod sets it, else what is projected beside the token.

    Raises :class:`NotFoundError` outside a pod.
    """
    return environ.get("POD_NAMESPACE") or _read(account_folder(environ) / "namespace")


def in_cluster(environ: Mapping[str, str] = os.environ) -> Configuration:
    """The API server of the cluster that this process runs in, by the pod's own ServiceAccount.

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
    configuration = Configuration(host=f"https://{f'[{host}]' if ':' in host else host}:{port}")
    configuration.ssl_ca_cert = str(folder / "ca.crt")

    async def renew(current: Configuration, refused: bool) -> None:
        del refused  # the file says what there is
        current.api_key["BearerToken"] = f"Bearer {_read(folder / 'token')}"

    configuration.api_key["BearerToken"] = f"Bearer {_read(folder / 'token')}"
    _keep_fresh(configuration, renew, RELOAD_SECONDS)
    return configuration


async def from_kubeconfig(path: Path | None = None, context: str | None = None) -> Configuration:
    """The API server and user of a kubeconfig: of ``path``, else of ``KUBECONFIG``, else of ``~/.kube/config``.

    ``context`` is one of its contexts; None: the current one. Raises :class:`InvalidInputError` for a kubeconfig or
    context that cannot be used, and :class:`NotFoundError` where there is no file ``path``.
    """
    if path is not None and not await asyncio.to_thread(path.exists):
        raise NotFoundError(f"there is no kubeconfig {path}; gravswell cluster up makes one")
    configuration = Configuration()
    try:
        loader: Any = await load_kube_config(  # type: ignore[no-untyped-call]  # the client's config module has no types
            config_file=str(path) if path is not None else None, context=context, client_configuration=configuration
        )
    except (ConfigException, YAMLError) as error:
        raise InvalidInputError(
            f"no usable kubeconfig: {error}; name one with --kubeconfig, or make a cluster with gravswell cluster up"
        ) from None

    async def renew(current: Configuration, refused: bool) -> None:
        if refused:  # else the loader takes a plugin's credential for good until it expires
            vars(loader).pop("exec_plugin_expiry", None)
        await loader.load_and_set(current)

    _keep_fresh(configuration, renew, RENEW_SECONDS)
    return configuration


async def load(kubeconfig: Path | None = None, context: str | None = None) -> Configuration:
    """With neither argument: the pod's own account inside a cluster, and outside of one the user's kubeconfig.

    Raises as :func:`from_kubeconfig`.
    """
    if kubeconfig is None and context is None:
        try:
            return in_cluster()
        except NotFoundError:
            pass  # not in a pod: a person's machine
    return await from_kubeconfig(kubeconfig, context)


async def open_session(configuration: Configuration, *, program: str) -> aiohttp.ClientSession:
    """An HTTP session that proves who we are with every request. ``program`` is what the audit log calls us.

    A token may rotate meanwhile; a client certificate is read once.
    """

    async def authenticate(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        setting = (await configuration.auth_settings()).get("BearerToken")
        if setting is not None and setting["value"]:
            request.headers["Authorization"] = setting["value"]
        if configuration.tls_server_name:
            request.server_hostname = configuration.tls_server_name
        response = await send(request)
        renewal: object = configuration.refresh_api_key_hook
        if response.status == HTTPStatus.UNAUTHORIZED and isinstance(renewal, _Renewal):
            fresh = await renewal.refused(configuration, request.headers.get("Authorization"))
            if fresh is not None:  # the last ones were revoked before their time
                response.release()
                request.headers["Authorization"] = fresh
                response = await send(request)
        return response

    context = await asyncio.to_thread(_ssl_context, configuration)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),  # every watch holds one
        headers={"User-Agent": f"{program}/{__version__}", "Accept": "application/json"},
        middlewares=(authenticate,),
        proxy=configuration.proxy,
        read_bufsize=2**21,  # a page of a list, or one object of a watch, in few pieces
    )


_Renew = Callable[[Configuration, bool], Awaitable[None]]
"""Reads the credentials anew; the flag says whether the last ones were refused."""


def _keep_fresh(configuration: Configuration, renew: _Renew, seconds: float) -> None:
    """Call ``renew`` before a request when the last time is ``seconds`` ago, and after a 401."""
    configuration.refresh_api_key_hook = _Renewal(renew, seconds)  # type: ignore[assignment]  # declared as None


class _Renewal:
    """When credentials are read anew: after a while, and when they are refused."""

    def __init__(self, renew: _Renew, seconds: float) -> None:
        self._renew = renew
        self._seconds = seconds
        self._renewed = time.monotonic()
        self._early = -math.inf

    async def __call__(self, current: Configuration) -> None:
        """Before each request."""
        if time.monotonic() - self._renewed >= self._seconds:
            await self._now(current, refused=False)

    async def refused(self, current: Configuration, value: str | None) -> str | None:
        """After a request that ``value`` was refused for: another one, where there is one. Not twice at once."""
        now = time.monotonic()
        if current.api_key.get("BearerToken") == value and now - self._early >= EARLY_SECONDS:
            self._early = now
            await self._now(current, refused=True)
        fresh = current.api_key.get("BearerToken")
        return fresh if fresh != value else None

    async def _now(self, current: Configuration, *, refused: bool) -> None:
        self._renewed = time.monotonic()  # before the wait: requests meanwhile go on with what there is
        try:
            await self._renew(current, refused)
        except (GravswellError, ConfigException, aiohttp.ClientError, OSError, ValueError) as error:
            log.warning("the credentials for %s could not be renewed: %s", current.host, error)


def _ssl_context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


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
