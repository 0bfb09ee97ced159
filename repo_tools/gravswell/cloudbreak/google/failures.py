"""Google's errors and failed operations, in our words: which object, what happened, and the way out."""

from google.api_core import exceptions
from google.auth import exceptions as auth
from google.cloud import container_v1 as container

from gravswell.cloudbreak.errors import (
    BusyError,
    FailedError,
    LostError,
    QuotaError,
    StockoutError,
    ThrottledError,
)
from gravswell.errors import AccessDeniedError, ConflictError, GravswellError, InvalidInputError, NotFoundError

_STOCKOUT = ("stockout", "resource_pool_exhausted", "does not have enough resources", "resources are not available")
_RATE = ("rate_limit", "rate limit", "per minute", "per day", "requests per", "quota metric")
_QUOTA_CODES = {container.StatusCondition.Code.GCE_QUOTA_EXCEEDED}
_STOCKOUT_CODES = {container.StatusCondition.Code.GCE_STOCKOUT}
_EXHAUSTED = 8
"""``RESOURCE_EXHAUSTED`` of google.rpc.Code."""
_MORE = "ask for more (IAM & Admin > Quotas), delete what is not needed, or take another location"
_ELSEWHERE = "try again later, or take another zone, machine or GPU type"

_OTHERS = (
    "give others: the key of a service account in GOOGLE_APPLICATION_CREDENTIALS, or without that variable those that "
    "`gcloud auth application-default login` makes"
)
"""In the words of a shell, which are true in Python, too."""

_UNDER_WAY = ("operation", "reconcil", "being ")
_PLAIN: tuple[tuple[type[Exception], type[GravswellError], str], ...] = (
    (
        exceptions.Unauthenticated,
        AccessDeniedError,
        f"{{what}}: Google refused the credentials: {{words}}; renew them, or {_OTHERS}",
    ),
    (exceptions.NotFound, NotFoundError, "{what}: {words}"),
    (exceptions.AlreadyExists, ConflictError, "{what} exists already: {words}"),
    (exceptions.BadRequest, InvalidInputError, "{what}: Google takes no such thing: {words}"),
)


def told(what: str, error: Exception) -> GravswellError:
    """The answer to a call about ``what``, as a member of our tree of errors."""
    if isinstance(error, auth.GoogleAuthError):
        return AccessDeniedError(f"{what}: Google's credentials cannot be used: {str(error).rstrip('.')}; {_OTHERS}")
    words = str(getattr(error, "message", "") or error)
    if isinstance(error, exceptions.ResourceExhausted | exceptions.TooManyRequests | exceptions.PermissionDenied):
        return _refused(what, error, words)
    if isinstance(error, exceptions.FailedPrecondition | exceptions.Aborted):
        if any(mark in words.lower() for mark in _UNDER_WAY):
            return BusyError(f"{what}: {words}; it is free again when that operation has ended")
        return FailedError(f"{what}: Google does not do it as things are: {words}")
    for kind, ours, text in _PLAIN:
        if isinstance(error, kind):
            return ours(text.format(what=what, words=words))
    return LostError(f"{what}: no answer from Google: {words or type(error).__name__}; try again")


def _refused(what: str, error: Exception, words: str) -> GravswellError:
    """``RESOURCE_EXHAUSTED`` is too many requests or too little quota, and lack of quota is a 403 sometimes."""
    said = f"{getattr(error, 'reason', '') or ''} {words}".lower()
    if isinstance(error, exceptions.PermissionDenied):
        if "service_disabled" in said or "it is disabled" in said:
            return NotFoundError(f"{what}: the Kubernetes Engine API is off in that project: {words}")
        if "quota" in said and "permission" not in said:
            return QuotaError(f"{what}: the project's quota does not allow it: {words}; {_MORE}")
        return AccessDeniedError(f"{what}: {words}; the account needs the role roles/container.admin, or a part of it")
    if any(mark in said for mark in _STOCKOUT):
        return StockoutError(f"{what}: Google has none left there: {words}; {_ELSEWHERE}")
    if "quota" in said and not any(mark in said for mark in _RATE):
        return QuotaError(f"{what}: the project's quota does not allow it: {words}; {_MORE}")
    return ThrottledError(f"{what}: too many requests for Google: {words}; try again later")


def failure(what: str, operation: container.Operation) -> GravswellError | None:
    """Why an operation that is done did not do what it was for; None where it did."""
    conditions = [*operation.nodepool_conditions, *operation.cluster_conditions]
    message = operation.error.message or operation.status_message
    if not operation.error.code and not operation.status_message:
        return None
    return broken(what, message, conditions, exhausted=operation.error.code == _EXHAUSTED)


def broken(
    what: str, message: str, conditions: list[container.StatusCondition], *, exhausted: bool = False
) -> GravswellError:
    """What is wrong with a cluster or node pool, by its own words and the codes of its conditions."""
    words = "; ".join(dict.fromkeys(part for part in (message, *(c.message for c in conditions)) if part))
    said = words.lower()
    codes = {condition.code for condition in conditions}
    if codes & _STOCKOUT_CODES or any(mark in said for mark in _STOCKOUT):
        return StockoutError(f"{what}: Google has none left there: {words}; {_ELSEWHERE}")
    if codes & _QUOTA_CODES or ("quota" in said and (exhausted or "exceeded" in said)):
        return QuotaError(f"{what}: the project's quota does not allow it: {words}; {_MORE}")
    return FailedError(f"{what}: Google failed: {words or 'it does not say why'}")
