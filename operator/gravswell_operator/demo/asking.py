"""Requests as any client of Triton's sends them: by tritonclient, over gRPC, many under way at once.

The demo shows that what the operator serves is a Triton like any other, so it does not use gravswell's own client here.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address

import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gravswell.addresses import split
from gravswell.errors import UnavailableError
from gravswell_operator.demo.digits import Floats

ROWS = 8
IN_FLIGHT = 32
TIMEOUT = 60.0
"""Seconds for one request."""


def connect(address: str) -> InferenceServerClient:
    """A client of the gRPC server at ``address`` (``IP:port``), directly where it is on this machine.

    gRPC sends everything through the proxy that the environment names (``https_proxy``), loopback too; no proxy on
    another machine can reach that.
    """
    loopback = ip_address(split(address)[0]).is_loopback
    return InferenceServerClient(address, channel_args=[("grpc.enable_http_proxy", 0)] if loopback else None)


async def scores(
    addresses: Sequence[str], model: str, input_name: str, images: Floats, *, on_rows: Callable[[int], None]
) -> dict[str, Floats]:
    """The outputs of ``model`` for ``images`` (n, 64), row for row, asked in turns of the servers at ``addresses``.

    ``on_rows(k)`` is called as the answers for ``k`` more arrive. UnavailableError when a request fails.
    """
    starts = range(0, len(images), ROWS)
    answers: dict[int, dict[str, Floats]] = {}
    free = asyncio.Semaphore(IN_FLIGHT)

    async def ask(client: InferenceServerClient, start: int) -> None:
        rows = images[start : start + ROWS]
        tensor = InferInput(input_name, list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows)
        async with free:
            try:
                answer = await client.infer(model, [tensor], client_timeout=TIMEOUT)
            except InferenceServerException as error:
                raise UnavailableError(
                    f"{model} did not answer for images {start} to {start + len(rows) - 1}: {error}"
                ) from error
        names = [output.name for output in answer.get_response().outputs]
        answers[start] = {name: answer.as_numpy(name) for name in names}
        on_rows(len(rows))

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(address)) for address in addresses]
        tasks = [asyncio.ensure_future(ask(clients[i % len(clients)], start)) for i, start in enumerate(starts)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return {name: np.concatenate([answers[start][name] for start in starts]) for name in answers[0]}
