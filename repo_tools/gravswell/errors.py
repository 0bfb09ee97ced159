"""The errors of gravswell.

::

    GravswellError                 exit code 1
    ├── InvalidInputError          2   a name, an option or a manifest that cannot be right (also a ValueError)
    ├── NotFoundError              3   a repository, entry, version, file or object that is not there
    ├── ConflictError              4   it exists already, or another writer was faster
    ├── VerificationError          5   bytes or outputs differ from what was recorded
    ├── ExportError                6   a framework model that cannot become an ONNX version
    ├── UnavailableError           7   a server, store or API that does not answer
    │   └── AccessDeniedError      8   it answered, and refused the credentials
    └── UnsupportedError           9   this platform or installation cannot do it; the message says what can

Every message names the object, the fact and the way out, so a command prints it alone, without a traceback.
"""

from typing import ClassVar


class GravswellError(Exception):
    """Base of every error that a user can cause or mend. ``exit_code`` is what the command line exits with."""

    exit_code: ClassVar[int] = 1


class InvalidInputError(GravswellError, ValueError):
    """A name, an option or a manifest that cannot be right."""

    exit_code = 2


class NotFoundError(GravswellError):
    """A repository, entry, version, file or object that is not there."""

    exit_code = 3


class ConflictError(GravswellError):
    """The object exists already, or another writer was faster."""

    exit_code = 4


class VerificationError(GravswellError):
    """Bytes or outputs differ from what was recorded."""

    exit_code = 5


class ExportError(GravswellError):
    """A framework model that cannot become an ONNX version."""

    exit_code = 6


class UnavailableError(GravswellError):
    """A server, a store or an API that does not answer."""

    exit_code = 7


class AccessDeniedError(UnavailableError):
    """The store or API answered, and refused the credentials."""

    exit_code = 8


class UnsupportedError(GravswellError):
    """This platform or installation cannot do it; the message says what can."""

    exit_code = 9
