"""The key of one pod, with which its Triton closes its control APIs to everyone but its agent."""

import os
import secrets
import tempfile
from pathlib import Path

from gravswell.errors import InvalidInputError, NotFoundError


def make_key(path: Path) -> bool:
    """Write a new random key to ``path``, for the one pod whose Triton and agent read it; False if it has one already.

    A pod whose sandbox is made anew runs its init containers again beside servers that may still use the first key, so
    an existing key is never replaced. InvalidInputError for a folder, NotFoundError where none can be made.
    """
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".key-") as stream:
            stream.write(secrets.token_urlsafe(32))
            stream.flush()
            os.fchmod(stream.fileno(), 0o440)  # whatever the umask: the pod's group reads it
            path.hardlink_to(stream.name)  # fails if it is there, and never shows half a key
    except FileExistsError:
        if path.is_dir():
            raise InvalidInputError(f"{path} is a folder: name a file in it, as {path / 'key'}") from None
        return False
    except OSError as error:
        raise NotFoundError(f"{path} cannot be made: {error.strerror}; its folder must exist and be writable") from None
    return True


def read_key(path: Path) -> str:
    """The key in ``path``."""
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}; `gravswell agent init` makes it") from None
    if not key:
        raise InvalidInputError(f"{path} is empty; remove it and run `gravswell agent init`")
    return key
