"""Patience with the API server's node authorizer, which learns that a pod is ours a moment after we do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gravswell.errors import GravswellError

T = TypeVar("T")

PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0


def is_settling(error: Exception) -> bool:
    """Whether ``error`` says that the authorizer does not connect this node with an object, yet."""
    return "no relationship found between node" in str(error)


async def settled(call: Callable[[], Awaitable[T]]) -> T:
    """Return what ``call`` returns, trying again for a few seconds while the authorizer has to learn."""
    end = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    while True:
        try:
            return await call()
        except GravswellError as error:
            if not is_settling(error) or asyncio.get_running_loop().time() > end:
                raise
        await asyncio.sleep(PAUSE_SECONDS)
