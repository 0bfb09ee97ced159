"""Coroutines for callers that have no loop, or have one that must not be blocked, as a notebook's cell."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What ``work`` returns, run by a loop in a thread of its own. Ctrl-C cancels it and waits for its end."""
    done: Future[T] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def main() -> T:
        task = asyncio.ensure_future(work())
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    def thread() -> None:
        try:
            done.set_result(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            done.set_exception(error)

    runner = threading.Thread(target=thread, name="cloudbreak", daemon=True)
    runner.start()
    try:
        return done.result()
    except KeyboardInterrupt:
        loop, task = started.result()
        if not done.done():
            loop.call_soon_threadsafe(task.cancel)
        runner.join(timeout=10)
        raise
