"""Packages into a folder of their own, once, by whichever installer is there, and a check of shared libraries."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gravswell.cache import locked, require_free_space
from gravswell.errors import UnavailableError

Progress = Callable[[str, int, int], None]
"""``progress(step, done, total)``: what is being done, and bytes; ``total`` is an estimate."""

POLL_SECONDS = 0.2

PEAK_FACTOR = 2
"""While a package is unpacked, its archive and its files are there at once."""


def digest(*parts: str) -> str:
    """A short name for what is made of ``parts``."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def once(target: Path, size: int, what: str, build: Callable[[Path], None]) -> None:
    """Have ``build`` fill a folder that becomes ``target``, of about ``size`` bytes, unless that is there.

    Any number of processes may call this at once: one builds, the others wait. UnavailableError says that ``what``
    cannot be installed where the disk is full.
    """
    if target.is_dir():  # it came by one rename, so it is complete
        return
    with locked(target):
        if target.is_dir():  # another process was faster
            return
        require_free_space(target, size * PEAK_FACTOR)
        stage = target.with_name(f".{target.name}.staging")
        shutil.rmtree(stage, ignore_errors=True)  # what a killed installation left
        try:
            stage.mkdir()
            build(stage)
            stage.rename(target)
        except OSError as error:
            raise UnavailableError(f"{what} cannot be installed in {target}: {error}") from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def install_packages(
    requirements: Sequence[str], target: Path, size: int, progress: Progress, *, deps: bool = True
) -> None:
    """Install ``requirements`` for this interpreter into the folder ``target``; nothing else is touched.

    ``size`` estimates the bytes on disk. Raises :class:`UnavailableError` with the installer's last words.
    """
    step = f"installing {requirements[0]}"
    target.mkdir(parents=True, exist_ok=True)
    scratch = target / ".scratch"  # inside the stage: measured with it, and cleared with it
    scratch.mkdir()
    log = scratch / "install.log"
    command = [*_installer(), "--target", str(target), "--only-binary", ":all:", *requirements]
    if not deps:
        command.append("--no-deps")
    # A user-wide `user = true` cannot be combined with --target.
    environment = os.environ | {"TMPDIR": str(scratch), "PIP_USER": "0", "PIP_NO_INPUT": "1"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        try:
            done = 0
            while process.poll() is None:
                done = max(done, min(_size(target), size))  # archives come and go while they are unpacked
                progress(step, done, size)
                time.sleep(POLL_SECONDS)
        except BaseException:  # Ctrl-C, or a progress display that fails: the installer must not go on alone
            process.terminate()
            raise
    if process.returncode:
        words = " ".join(log.read_text(errors="replace").split()[-60:])
        raise UnavailableError(
            f"{requirements[0]} could not be installed: {words}; "
            f"check the network and the package index, then try again"
        )
    shutil.rmtree(scratch)
    progress(step, size, size)


def _installer() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable, "--quiet"]
    raise UnavailableError(
        f"the embedded Triton is installed with pip or uv, and {sys.executable} has neither; "
        f"run: {sys.executable} -m ensurepip"
    )


def _size(folder: Path) -> int:
    total = 0
    for base, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(base) / name).lstat().st_size
            except FileNotFoundError:  # the installer moves files while we count
                continue
    return total


def run_checked(command: list[str], what: str) -> None:
    """Run a short command; raises :class:`UnavailableError` with its last words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise UnavailableError(f"{what} does not work on this system: {' '.join(done.stderr.split()[-60:])}")


def require_libraries(programs: Iterable[Path], folders: Sequence[str]) -> None:
    """Raise :class:`UnavailableError` naming every shared library that ``programs`` need and this system lacks.

    Started all the same, the server would wait for its backend for ever. ``folders`` are searched before the system's.
    """
    ldd = shutil.which("ldd")
    if ldd is None:  # part of glibc's own package; without it the start-up time-out must do
        return
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(folders)}
    missing = set()
    for program in programs:
        listing = subprocess.run(
            [ldd, str(program)], capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
        ).stdout
        missing |= {line.split()[0] for line in listing.splitlines() if "not found" in line}
    if missing:
        hint = (
            "a Python built as a shared library has it (Debian: apt install libpython3-dev; pyenv: --enable-shared)"
            if any(name.startswith("libpython") for name in missing)
            else "install the packages that carry them"
        )
        raise UnavailableError(f"the embedded Triton needs {', '.join(sorted(missing))}, not on this system; {hint}")
