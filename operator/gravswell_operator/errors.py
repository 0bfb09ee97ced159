"""The errors of the operator: what the API server answers, as members of the library's tree.

::

    gravswell.errors.GravswellError
    ├── UnavailableError  ← ApiUnavailableError   no answer, 429 or 5xx: try again later
    │   │                 ← ApiExpiredError       410: what was asked for is too old; ask anew
    │   └── AccessDeniedError ← ApiForbiddenError 401 or 403: the operator's role lacks something
    ├── InvalidInputError ← ApiRejectedError      400 or 422: what was sent cannot be right
    ├── NotFoundError     ← ApiNotFoundError      404: the object, its namespace or its kind
    ├── ConflictError     ← ApiConflictError      409: somebody else was faster
    └── UnavailableError  ← LeaseLostError        another operator may be active now
"""

from gravswell.errors import (
    AccessDeniedError,
    ConflictError,
    GravswellError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)


class ApiUnavailableError(UnavailableError):
    """The API server did not answer, or asked to come back later. ``retry_after`` is in seconds, if it said."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ApiExpiredError(ApiUnavailableError):
    """The API server no longer has the state of the cluster that the request continues; ask from the beginning."""


class ApiForbiddenError(AccessDeniedError):
    """The API server refused the operator's credentials or found its role too small."""


class ApiRejectedError(InvalidInputError):
    """The API server found the object invalid; the message is its own."""


class ApiNotFoundError(NotFoundError):
    """The object, its namespace or its kind is not there."""


class ApiConflictError(ConflictError):
    """The object exists already, or it changed between reading and writing."""


class LeaseLostError(UnavailableError):
    """The operator could not renew its lease in time, so another one may be active; this one must end."""


__all__ = [
    "ApiConflictError",
    "ApiExpiredError",
    "ApiForbiddenError",
    "ApiNotFoundError",
    "ApiRejectedError",
    "ApiUnavailableError",
    "GravswellError",
    "LeaseLostError",
]
