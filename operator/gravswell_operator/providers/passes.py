"""One pass of a :class:`Cloud`, whoever wrote it: it ends in time, and its faults are its own."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gravswell.errors import GravswellError
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.providers.base import Ask, CloudState, ProviderError
from gravswell_operator.state import Problem

T = TypeVar("T")

log = logging.getLogger(__name__)


async def answer(step: Callable[[Ask], Awaitable[CloudState]], ask: Ask, seconds: float) -> CloudState:
    """What ``step`` answers.

    Raises :class:`TimeoutError` after ``seconds``, when the pass is cancelled and not waited for: one that does not let
    itself be cancelled must not hold a worker. Raises :class:`ProviderError` for everything that is no answer.
    """
    name = ask.pool.spec.provider.key
    # A task of its own: what a provider cancels is never the operator's worker.
    task = asyncio.create_task(without_exit(lambda: step(ask)), name=f"provider {name}")
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise TimeoutError
    try:
        return _checked(task.result())
    except GravswellError as error:
        raise ProviderError(f"provider {name}: {error}") from error
    except (Exception, asyncio.CancelledError) as error:  # nobody has cancelled it but itself
        log.exception("%s: a fault of the provider %s", ask.pool.metadata.name, name)
        raise ProviderError(
            f"a fault of the provider {name}, which the operator's log tells with its traceback: "
            f"{type(error).__name__}: {error}"
        ) from error


async def without_exit(call: Callable[[], Awaitable[T]]) -> T:
    """What others' code answers; where it asks the process to end, a :class:`RuntimeError` says so."""
    try:
        return await call()
    except SystemExit as error:  # in a task it would end the event loop
        raise RuntimeError(f"it asked the process to end ({error})") from error


def _checked(state: object) -> CloudState:
    """``state``, if it is an answer. Raises :class:`TypeError`, which says what is not."""
    if not isinstance(state, CloudState):
        raise TypeError(f"it answered {state!r}, and not a CloudState")
    if not isinstance(state.remembered, CloudStatus):
        raise TypeError(f"CloudState.remembered is {state.remembered!r}, and not a CloudStatus")
    problem = state.problem
    if problem is not None and not (
        isinstance(problem, Problem) and isinstance(problem.reason, Reason) and isinstance(problem.message, str)
    ):
        raise TypeError(f"CloudState.problem is {problem!r}, and not a Problem of a Reason and words")
    again = state.look_again
    if again is not None and not (isinstance(again, int | float) and 0 <= again < math.inf):
        raise TypeError(f"CloudState.look_again is {again!r}, and not a number of seconds")
    return state
