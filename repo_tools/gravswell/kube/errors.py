"""What the API server answers, as members of the library's tree of errors.

::

    gravswell.errors.GravswellError
    ├── UnavailableError  ← ApiUnavailableError   no answer, 429 or 5xx: try again later
    │   │                 ← ApiExpiredError       410: what was asked for is too old; ask anew
    │   └── AccessDeniedError ← ApiForbiddenError 401 or 403: the role lacks something
    │                           ├── NamespaceTerminatingError   or the namespace is being deleted
    │                           ├── QuotaExceededError          or a ResourceQuota does not allow it
    │                           └── AdmissionDeniedError        or a webhook, a policy or Pod Security does not
    ├── InvalidInputError ← ApiRejectedError      400, 422 and other 4xx: what was sent cannot be right
    ├── NotFoundError     ← ApiNotFoundError      404: the object, its namespace or its kind
    │                           └── NamespaceNotFoundError      the namespace
    └── ConflictError     ← ApiConflictError      409 or 412: somebody else was faster
"""

import json
from typing import Any

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
    """The API server refused our credentials or found our role too small."""


class NamespaceTerminatingError(ApiForbiddenError):
    """Nothing is created in a namespace that is being deleted; what it holds goes with it."""


class QuotaExceededError(ApiForbiddenError):
    """A ResourceQuota of the namespace does not allow it; no right would."""


class AdmissionDeniedError(ApiForbiddenError):
    """An admission webhook, an admission policy or the Pod Security Standard refuses the object; no right would."""


_DENIALS: tuple[tuple[str, type[ApiForbiddenError]], ...] = (
    ("admission webhook ", AdmissionDeniedError),
    ("ValidatingAdmissionPolicy '", AdmissionDeniedError),
    ("violates PodSecurity ", AdmissionDeniedError),
    ("exceeded quota: ", QuotaExceededError),
    ("failed quota: ", QuotaExceededError),
    ("insufficient quota to ", QuotaExceededError),
)
"""By what the API server writes in a 403 of its admission; those of its authorization have none of it. The first that
fits: a webhook may speak of quotas."""


class ApiRejectedError(InvalidInputError):
    """The API server found the object invalid; the message is its own."""


class ApiNotFoundError(NotFoundError):
    """The object, its namespace or its kind is not there."""


class NamespaceNotFoundError(ApiNotFoundError):
    """The namespace itself is not there."""


class ApiConflictError(ConflictError):
    """The object exists already, or it changed between reading and writing."""


def refusal(what: str, status: int, answer: bytes, retry_after: str | None = None) -> GravswellError:
    """An answer that is no success, as an error about ``what``; the API server's own message says more than the number.

    ``retry_after`` is the header of that name, where there is one.
    """
    try:
        document = json.loads(answer)
    except ValueError:  # of something between us and the API server
        document = {"message": answer[:200].decode(errors="replace")}
    return told(what, status, document if isinstance(document, dict) else {}, retry_after)


def told(what: str, status: int, document: dict[str, Any], retry_after: str | None = None) -> GravswellError:
    """:func:`refusal` of a ``Status`` that was read already."""
    text = f"{what}: {document.get('message') or f'HTTP {status}'}"
    plain: dict[int, type[GravswellError]] = {
        401: ApiForbiddenError,
        403: ApiForbiddenError,
        404: ApiNotFoundError,
        409: ApiConflictError,
        412: ApiConflictError,
        410: ApiExpiredError,
    }
    details = document.get("details") or {}
    if status == 403 and any(cause.get("reason") == "NamespaceTerminating" for cause in details.get("causes") or ()):
        return NamespaceTerminatingError(text)
    if status == 403 and (denial := next((kind for words, kind in _DENIALS if words in text), None)) is not None:
        return denial(text)
    if status == 404 and details.get("kind") == "namespaces":
        return NamespaceNotFoundError(text)
    if status in plain:
        return plain[status](text)
    if 400 <= status < 500 and status != 429:
        return ApiRejectedError(text)
    asked = retry_after or str(details.get("retryAfterSeconds", ""))
    return ApiUnavailableError(text, float(asked) if asked.isdigit() else None)
