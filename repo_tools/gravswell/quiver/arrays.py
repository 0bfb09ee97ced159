"""Arrays in an ``.npz`` that whoever reads it needs no pickle for."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.quiver.disk import replacing, told


def storable(what: str, array: NDArray[Any]) -> NDArray[Any]:
    """Text as fixed-width strings, everything else as it is.

    InvalidInputError, which says that it is ``what``, for what such strings cannot hold: bytes that are no text, and
    text that ends in NUL.
    """
    array = np.asarray(array)
    if array.dtype.kind != "O":
        return array
    try:
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise InvalidInputError(f"{what} holds bytes that are not UTF-8, and an .npz file keeps text only") from None
    if any(text.endswith("\0") for text in texts):
        raise InvalidInputError(f"{what} holds text that ends in NUL, which an .npz file cannot keep")
    return np.array(texts, np.str_).reshape(array.shape)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Write ``path``, an array for each name, and return them as they stand there.

    All of it or nothing: what was there stays until the whole is on the disk.
    UnavailableError where the disk does not take it, InvalidInputError as of :func:`storable`.
    """
    whole = {name: storable(f"output {name!r}", array) for name, array in arrays.items()}
    try:
        with replacing(path) as beside, beside.open("wb") as stream:
            with ZipFile(stream, "w") as archive:  # as numpy.savez, which takes no array called "file"
                for name, array in whole.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written: {told(error)}") from error
    return whole
