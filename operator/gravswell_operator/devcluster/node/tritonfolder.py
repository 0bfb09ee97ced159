"""Where the embedded Triton's ``tritonserver`` is: found, or installed, when the first pod asks for it."""

import asyncio
from pathlib import Path


class TritonFolder:
    """The folder with the embedded Triton's executable; pods that ask at the same time share one installation."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._found: Path | None = None

    async def get(self) -> Path:
        """Return the folder, installing Triton into the user's cache the first time.

        Raises:
            UnsupportedError: the embedded Triton does not exist for this platform.
        """
        async with self._lock:
            if self._found is None:
                self._found = await asyncio.to_thread(_install)
            return self._found


def _install() -> Path:
    from gravswell.serving.triton import ensure_triton  # noqa: PLC0415  heavy, and only pods with a Triton need it

    return ensure_triton().shim_dir
