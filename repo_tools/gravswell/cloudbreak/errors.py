"""What a cloud answers, as members of the library's tree of errors.

::

    gravswell.errors.GravswellError
    ├── QuotaError                          the project may not have so much: waiting does not help
    ├── StockoutError                       the cloud has none left there: waiting may help
    ├── FailedError                         an operation ended without what it was for
    ├── ConflictError    ← TakenError       the name is borne by what is not ours
    │                    ← BusyError        another operation is under way there: try again
    └── UnavailableError ← ThrottledError   too many requests: try again later
                         ← LostError        no answer: the call may have been taken, or not
"""

from gravswell.errors import ConflictError, GravswellError, UnavailableError


class QuotaError(GravswellError):
    """The project's quota does not allow it; more has to be asked for, or less used."""


class StockoutError(GravswellError):
    """The cloud has no such machines left at that place."""


class FailedError(GravswellError):
    """An operation of the cloud ended without what it was for."""


class TakenError(ConflictError):
    """Something bears the name that does not have our owner label, so it is neither used nor deleted."""


class BusyError(ConflictError):
    """Another operation is under way on the same cluster."""


class ThrottledError(UnavailableError):
    """The cloud takes no more requests for now."""


class LostError(UnavailableError):
    """No answer came: whether the call was taken must be looked up."""


TRANSIENT = (BusyError, ThrottledError, LostError)
"""What the same call, made later, may get past."""
