"""Where the API server is and who we are: a kubeconfig, or the pod's own ServiceAccount."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config

from gravswell import __version__
from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.serving import incluster


async def load(kubeconfig: Path | None, context: str | None) -> Configuration:
    """The client configuration.

    With neither argument: the pod's own account inside a cluster, and outside of one the user's kubeconfig
    (``KUBECONFIG``, else ``~/.kube/config``). Raises :class:`InvalidInputError` for a kubeconfig or context that
    cannot be used, and :class:`NotFoundError` where there is none.
    """
    if kubeconfig is None and context is None:
        try:
            return incluster.load()
        except NotFoundError:
            pass  # not in a pod: a person's machine
    configuration = Configuration()
    if kubeconfig is not None and not await asyncio.to_thread(kubeconfig.exists):
        raise NotFoundError(f"there is no kubeconfig {kubeconfig}; gravswell cluster up makes one")
    try:
        await load_kube_config(  # type: ignore[no-untyped-call]  # the client's config module has no types
            config_file=str(kubeconfig) if kubeconfig is not None else None,
            context=context,
            client_configuration=configuration,
        )
    except ConfigException as error:
        raise InvalidInputError(
            f"no usable kubeconfig: {error}; name one with --kubeconfig, or make a cluster with gravswell cluster up"
        ) from None
    return configuration


async def open_session(configuration: Configuration, *, connections: int) -> aiohttp.ClientSession:
    """An HTTP session that proves who we are with every request: tokens rotate. At most ``connections`` at once (0: any
    number)."""

    async def authenticate(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        setting = (await configuration.auth_settings()).get("BearerToken")
        if setting is not None and setting["value"]:
            request.headers["Authorization"] = setting["value"]
        return await send(request)

    context = await asyncio.to_thread(_ssl_context, configuration)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=context),
        headers={"User-Agent": f"gravswell-operator/{__version__}", "Accept": "application/json"},
        middlewares=(authenticate,),
        read_bufsize=2**21,  # one line of a watch may be a whole object
    )


def _ssl_context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
