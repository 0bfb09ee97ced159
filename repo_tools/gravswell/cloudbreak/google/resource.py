"""What clusters and node pools have in common: made once, waited for, found again, deleted whole."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from google.cloud import container_v1 as container

from gravswell.cloudbreak.errors import TRANSIENT, BusyError, LostError, TakenError
from gravswell.cloudbreak.google import failures
from gravswell.cloudbreak.google.api import Api
from gravswell.cloudbreak.google.owners import OWNER, labelled, labels_of
from gravswell.cloudbreak.waiting import Patience, Tell, display, short
from gravswell.errors import ConflictError, GravswellError, NotFoundError, UnavailableError

T = TypeVar("T", container.Cluster, container.NodePool)

WAIT_SECONDS = 1800.0
"""For a cluster or node pool to be made or deleted; Google takes some minutes."""
_MOVING = {"PROVISIONING", "RECONCILING"}
_BROKEN = {"ERROR", "DEGRADED", "RUNNING_WITH_ERROR"}


class Resource(ABC, Generic[T]):
    """A cluster or a node pool. As a context manager it is deleted at the end, with all that is in it.

    ``owner`` is what our label on it says, ``seconds`` the bound of each wait.
    """

    def __init__(self, api: Api, name: str, *, owner: str, seconds: float) -> None:
        self.api, self.name, self.owner, self.seconds = api, name, owner, seconds

    @property
    @abstractmethod
    def label(self) -> str:
        """How messages name it."""

    @abstractmethod
    def get(self) -> T:
        """As Google has it now; NotFoundError where it is gone."""

    @abstractmethod
    def _submit(self, wanted: T) -> container.Operation: ...

    @abstractmethod
    def _submit_deletion(self) -> container.Operation: ...

    def _differences(self, found: T, wanted: T) -> list[str]:
        """In what one that exists is not the wanted one, where that cannot be changed."""
        del found, wanted
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.delete()

    def __repr__(self) -> str:
        return f"<{self.label}>"

    def delete(self) -> None:
        """Delete it, and wait until it is gone; one that is gone already is fine.

        Raises :class:`TakenError` where it bears another owner's label or none.
        """
        self.remove(lambda found: self._check_owner(found, "delete"))

    def remove(self, check: Callable[[T], None]) -> None:
        """:meth:`delete`, where ``check`` has nothing to say against it; it is asked each time before Google is."""
        patience = Patience(self.seconds)
        until = f"{self.label} was not deleted; it may cost money: delete() again"
        with display(f"deleting {self.label}") as tell:

            def submit() -> container.Operation | None:
                try:
                    check(self.get())
                    return self._submit_deletion()
                except NotFoundError:
                    return None

            operation = patience.again(until, submit, tell)
            if operation is not None:
                self._settle(operation, patience, until, tell, gone=True)

    def make(self, wanted: T) -> None:
        """Make it as ``wanted``, or take over what a call before made, and wait until it runs.

        Raises :class:`TakenError` where the name is borne by what is not ours, ConflictError where it is ours and
        differs, and what :mod:`gravswell.cloudbreak.errors` has for the rest. What is left then is named.
        """
        patience = Patience(self.seconds)
        until = f"{self.label} was not made"
        with display(f"making {self.label}") as tell:
            operation = patience.again(until, lambda: self._begin(wanted), tell)
            try:
                self._settle(operation, patience, until, tell)
            except GravswellError as error:
                raise type(error)(f"{error}; {self._left()}") from error
            except KeyboardInterrupt as error:
                error.add_note(f"{self.label} goes on being made, and may cost money: call its delete()")
                raise

    def change(self, what: str, submit: Callable[[], container.Operation]) -> None:
        """Begin an operation that may be begun twice, and wait for its end."""
        patience = Patience(self.seconds)
        until = f"{self.label}: {what} did not come to an end"
        with display(f"{what} of {self.label}") as tell:
            self._settle(patience.again(until, submit, tell), patience, until, tell)

    def _begin(self, wanted: T) -> container.Operation | None:
        """The operation that makes it; None where it is there already, and ours: also after an answer was lost."""
        try:
            return self._submit(labelled(wanted, {OWNER: self.owner}))
        except ConflictError as error:
            if isinstance(error, BusyError):
                raise
            try:
                found = self.get()
            except NotFoundError:
                raise LostError(f"{self.label} was there, and went while it was looked at") from error
            self._check_owner(found, "use")
            if found.status.name == "STOPPING":
                raise BusyError(f"{self.label} is being deleted") from error
            if different := self._differences(found, wanted):
                raise ConflictError(
                    f"{self.label} exists, made by {self.owner}, and is another one: {'; '.join(different)}; take "
                    "another name, or delete it"
                ) from error
            return None

    def _check_owner(self, found: T, verb: str) -> None:
        owner = labels_of(found).get(OWNER)
        if owner != self.owner:
            whose = f"it is {owner}'s" if owner else "it does not bear our label"
            raise TakenError(
                f"{self.label} exists and is not ours to {verb}: {whose} ({OWNER}: {self.owner}); take another "
                "name, or say owner= to the ClusterManager as when it was made"
            )

    def _settle(
        self,
        operation: container.Operation | None,
        patience: Patience,
        until: str,
        tell: Tell,
        *,
        gone: bool = False,
    ) -> None:
        """Wait for the operation, or, where none is known or it is forgotten, for what the resource itself says."""
        while True:
            fault: GravswellError | None = None
            try:
                if operation is None:
                    words = self._state(gone=gone)
                else:
                    try:
                        operation = self.api.operation(operation.name)
                    except NotFoundError:
                        operation = None
                        continue
                    words = self._progress(operation)
                if not words:
                    return
                tell(f"{self.label}: {words}")
            except TRANSIENT as error:
                fault = error
                tell(short(error))
            patience.pause(until, fault)

    def _progress(self, operation: container.Operation) -> str:
        """What an operation is at; empty when it is done. Raises what it failed with."""
        if operation.status != container.Operation.Status.DONE:
            return f"{_plain(operation.operation_type)} {_plain(operation.status)} {operation.detail}".strip()
        failed = failures.failure(self.label, operation)
        if failed is not None:
            raise failed
        return ""

    def _state(self, *, gone: bool) -> str:
        """What it is at, by its own status; empty when it is as it shall be. Raises what is wrong with it."""
        try:
            found = self.get()
        except NotFoundError:
            if gone:
                return ""
            raise
        status = found.status.name
        if gone or status in _MOVING:
            return _plain(found.status)
        if status in _BROKEN:
            raise failures.broken(self.label, found.status_message, list(found.conditions))
        if status == "STOPPING":
            raise ConflictError(f"{self.label} is being deleted by somebody else")
        return ""

    def _left(self) -> str:
        try:
            status = self.get().status
        except NotFoundError:
            return "nothing of it is left"
        except UnavailableError:
            return f"whether {self.label} is left could not be looked up: `gravswell pools audit` does"
        way_out = "call its delete()" + ("" if status.name in _BROKEN else ", or make it again to wait for it")
        return f"it is left there ({_plain(status)}) and may cost money: {way_out}"


def _plain(value: Any) -> str:
    return str(value.name).lower().replace("_", " ")
