"""Why a step of one model failed: the errors of the disk, the repository and Triton as reasons of the report."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from gravswell.errors import AccessDeniedError, GravswellError, UnavailableError
from gravswell.serving.agent.triton import TritonBusyError, TritonRefusedError, TritonSilentError
from gravswell.serving.contracts import PRIVATE_PREFIX, DesiredModel, Reason
from gravswell.serving.triton.reasons import tidy_reason


class ModelFailure(GravswellError):  # noqa: N818  it is a fact of a report, and it is named like one there
    """One step of one model failed; what was loaded before still serves."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SupersededError(GravswellError):
    """The version is no longer desired, or the agent stops: what is under way for it is given up."""


def require_wanted(model: DesiredModel, *, wanted: bool) -> None:
    """Raise :class:`SupersededError` if ``model`` is not wanted by now: nothing more is begun for it."""
    if not wanted:
        raise SupersededError(f"version {model.version} of '{model.name}' is no longer wanted")


@contextmanager
def full_disk_told(model: DesiredModel) -> Iterator[None]:
    """Raise :class:`ModelFailure` for a models folder that got full in the block, whoever met it first."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise _no_space(model) from error


def repository_failure(error: UnavailableError, model: DesiredModel) -> ModelFailure:
    """What a copy from the repository failed with: the repository's fault, or a full disk here."""
    if is_full(error.__cause__):
        return _no_space(model)
    denied = isinstance(error, AccessDeniedError)
    return ModelFailure(Reason.ACCESS_DENIED if denied else Reason.REPOSITORY_UNAVAILABLE, str(error))


@contextmanager
def told_of_member(member: DesiredModel) -> Iterator[None]:
    """Say of a :class:`ModelFailure` in the block which member of a pipeline failed."""
    try:
        yield
    except ModelFailure as failure:
        raise ModelFailure(failure.reason, f"its member {member.name}/{member.version}: {failure}") from None


@contextmanager
def load_told(model: DesiredModel, what: str) -> Iterator[None]:
    """Raise :class:`ModelFailure` where Triton refuses in the block to load ``model``, or gives no answer.

    ``what`` was not loaded, says the message then.
    """
    try:
        yield
    except TritonRefusedError as error:
        raise _load_failure(error, model) from None
    except (TritonBusyError, TritonSilentError) as error:
        raise ModelFailure(Reason.NO_ANSWER, f"{what} was not loaded: {error}") from None


def is_full(error: BaseException | None) -> bool:
    """Whether it is a disk's that has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _load_failure(error: TritonRefusedError, model: DesiredModel) -> ModelFailure:
    """Triton's reason in the user's terms: without its own preamble, and without the private name's folder."""
    words = re.sub(r"^load failed for model '[^']*': (?:version \d+ is at \w+ state: )?", "", str(error))
    folder = rf"\S*/(?:{PRIVATE_PREFIX}\w+|{re.escape(model.name)})/"
    words = re.sub(folder, f"{model.name}/", tidy_reason(words)).strip(" ;\n")
    return ModelFailure(Reason.LOAD_FAILED, words)


def _no_space(model: DesiredModel) -> ModelFailure:
    return ModelFailure(
        Reason.NO_SPACE,
        f"the models folder got full with version {model.version} of '{model.name}'; "
        f"give the server more model storage",
    )
