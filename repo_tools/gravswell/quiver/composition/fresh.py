"""A pipeline's Python as a server has it: in an interpreter of its own, from the published files alone."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gravswell.errors import ExportError
from gravswell.quiver.composition import child
from gravswell.quiver.golden import Array

CallMember = Callable[[str, Mapping[str, Array]], dict[str, Array]]
"""Runs the member of that alias."""

OWN_FOLDERS = ("site-packages", "dist-packages")
"""What interpreters call the folders in which packages are installed; Debian's has its own name, and several."""

_GRACE = 10.0
_TOLD = 400


def package_folders() -> list[Path]:
    """The folders of ``sys.path`` in which packages are installed: an interpreter's own, and others such as those of
    ``pip install --target``.
    """
    folders = [Path(folder) for folder in sys.path if folder]
    return [folder for folder in folders if folder.name in OWN_FOLDERS or any(folder.glob("*.dist-info"))]


class FreshInterpreter:
    """Runs the pipeline whose files are in ``folder``; its members run here, by ``call``.

    The interpreter is this one, isolated: it finds what is installed, and neither the working folder nor what else
    ``PYTHONPATH`` names. What the function prints is dropped.
    """

    def __init__(self, folder: Path, call: CallMember) -> None:
        self._folder = folder
        self._call = call
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", child.__file__, str(folder), *map(str, package_folders())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def __enter__(self) -> "FreshInterpreter":
        try:
            self._await_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name. ExportError with what the function raised."""
        self._send("run", "", dict(given))
        while True:
            kind, text, arrays = self._receive()
            if kind == "done":
                return arrays
            if kind == "failed":
                raise ExportError(f"the shipped source fails in an interpreter of its own: {text}")
            try:
                answer = self._call(text, arrays)
            except Exception as error:  # noqa: BLE001 - the function may catch it, and is told else
                self._send("failed", f"{type(error).__name__}: {error}", {})
            else:
                self._send("answer", "", answer)

    def _await_ready(self) -> None:
        kind, text, _ = self._receive()
        if kind != "ready":
            raise ExportError(f"the shipped source does not load in an interpreter of its own: {text}")

    def _send(self, kind: str, text: str, arrays: dict[str, Array]) -> None:
        assert self._process.stdin is not None, "opened with a pipe"
        try:
            child.send(self._process.stdin, kind, text, arrays)  # type: ignore[arg-type]  # IO[bytes] writes as well
        except BrokenPipeError:
            raise self._died() from None

    def _receive(self) -> tuple[str, str, dict[str, Array]]:
        assert self._process.stdout is not None, "opened with a pipe"
        try:
            return child.receive(self._process.stdout)  # type: ignore[arg-type]
        except EOFError:
            raise self._died() from None

    def _died(self) -> ExportError:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split()
        return ExportError(
            f"the interpreter that ran the shipped source ended ({self._process.wait(_GRACE)}): "
            f"{' '.join(lines)[-_TOLD:] or 'it said nothing'}"
        )

    def _end(self) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it ended by itself
                self._process.stdin.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
