"""Puts the real Triton into the user's cache: once for each version, complete or not at all.

Three folders, each staged, renamed into place and reused for as long as what its name says is wanted:

- the wheel, with the server and its Python backend, far from any site-packages: its pins would meet ours there;
- the stub's environment, because the backend's processes need numpy < 2 and gravswell itself does not;
- the server's folder: our ``onnxruntime`` backend beside Triton's ``python`` one, and the program that starts it all.
  Its name carries a digest of our files, so an upgrade of gravswell writes these few and downloads nothing.
"""

import shlex
import shutil
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gravswell.cache import cache_dir
from gravswell.serving.triton.packages import Progress, digest, install_packages, once, require_libraries, run_checked
from gravswell.serving.triton.support import Machine, require_plain_path, require_support

TRITON_VERSION: Final = "2.51.0"
WHEEL: Final = "nvidia-pytriton==0.7.0"
STUB_NUMPY: Final = "numpy==1.26.4"
STUB_PACKAGES: Final = (STUB_NUMPY, "onnxruntime==1.31.1")

NO_BYTECODE: Final = "import sys; sys.dont_write_bytecode = True\n"
"""A ``.pth`` of the stub's environment: Python models lie in repositories, and the stub heeds no variable for this."""

WHEEL_BYTES, STUB_BYTES, SERVER_BYTES = 144_000_000, 150_000_000, 3_000_000
"""Measured sizes on disk; progress is shown against them."""

WHAT: Final = "the embedded Triton"

OURS: Final = Path(__file__).parent / "backends"

SHIM: Final = """\
#!/bin/sh
# Written by gravswell. Takes the arguments of NVIDIA's tritonserver and becomes it: same process, same signals.
export LD_LIBRARY_PATH={libraries}
export PATH={stub_bin}:"$PATH"
export OPENBLAS_NUM_THREADS=1
# What a request needed stays with the process that freed it, up to what glibc itself comes to keep once it has seen
# arrays of 32 MiB. Given back and taken anew, every page of it is faulted in again, which costs more than to fill it.
export MALLOC_MMAP_THRESHOLD_="${{MALLOC_MMAP_THRESHOLD_:-33554432}}"
export MALLOC_TRIM_THRESHOLD_="${{MALLOC_TRIM_THRESHOLD_:-67108864}}"
export ORT_DISABLE_TELEMETRY="${{ORT_DISABLE_TELEMETRY:-1}}"
unset PYTHONHOME
# The name of the segments in /dev/shm begins with our process id, so that what a killed server left can be told.
exec {program} --backend-directory={backends} --cache-directory={caches} \\
  --backend-config=python,shm-region-prefix-name="{prefix}$$-" \\
  --backend-config=onnxruntime,shm-region-prefix-name="{prefix}$$-" \\
  --backend-config=python,stub-timeout-seconds=120 \\
  --backend-config=onnxruntime,stub-timeout-seconds=120 \\
  "$@"
"""

SEGMENT_PREFIX: Final = "gravswell-"
"""Names in ``/dev/shm``: this, the server's process id, a dash, and a random part of Triton's."""


@dataclass(frozen=True)
class TritonInstallation:
    """An installed Triton. Everything in these folders is complete and never changes."""

    folder: Path
    version: str = TRITON_VERSION

    @property
    def shim_dir(self) -> Path:
        """Folder for the front of a PATH: its ``tritonserver`` takes the arguments of NVIDIA's."""
        return self.folder / "bin"

    @property
    def program(self) -> Path:
        """The executable ``tritonserver``."""
        return self.shim_dir / "tritonserver"


def ensure_triton(progress: Progress | None = None) -> TritonInstallation:
    """Return the embedded Triton, installing what of it is not in the cache yet.

    ``progress(step, done, total)`` is called while bytes arrive; ``total`` is an estimate. Any number of processes may
    call this at once: one installs, the others wait for it. An interrupted installation is taken up again where it
    left off, package by package.

    Raises :class:`UnsupportedError` on a platform without it, :class:`InvalidInputError` for a cache in a path that it
    cannot work in, and :class:`UnavailableError` when the packages cannot be had, the disk is full, or the system lacks
    a shared library.
    """
    require_support(Machine.this())
    report = progress or (lambda _step, _done, _total: None)
    root = cache_dir() / "triton"
    require_plain_path(root, "let GRAVSWELL_CACHE name another folder")
    wheel = root / f"wheel-{WHEEL.rpartition('==')[2]}"
    stub = root / f"stub-{digest(sys.version, sys.base_prefix, NO_BYTECODE, *STUB_PACKAGES)}"
    server = root / f"server-{digest(str(wheel), str(stub), SHIM, *_library_folders(wheel), *_sources())}"
    once(wheel, WHEEL_BYTES, WHAT, lambda stage: _build_wheel(stage, report))
    once(stub, STUB_BYTES, WHAT, lambda stage: _build_stub(stage, report))
    once(server, SERVER_BYTES, WHAT, lambda stage: _build_server(stage, server, wheel, stub))
    return TritonInstallation(server)


def _build_wheel(stage: Path, report: Progress) -> None:
    install_packages([WHEEL], stage, WHEEL_BYTES, report, deps=False)
    (stage / "pytriton" / "tritonserver" / "bin" / "tritonserver").chmod(0o755)  # installers drop the run bit


def _build_stub(stage: Path, report: Progress) -> None:
    # A virtual environment, because that is how the stub's interpreter is found: through the first python3 on PATH.
    venv.EnvBuilder(with_pip=False, symlinks=True).create(stage)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = stage / "lib" / version / "site-packages"
    install_packages(STUB_PACKAGES, packages, STUB_BYTES, report)
    (packages / "gravswell.pth").write_text(NO_BYTECODE)
    run_checked([str(stage / "bin" / "python3"), "-c", "import numpy, onnxruntime"], "the stub's environment")


def _build_server(stage: Path, final: Path, wheel: Path, stub: Path) -> None:
    triton = wheel / "pytriton" / "tritonserver"
    program = triton / "bin" / "tritonserver"
    # Copied, not linked: Triton refuses a backend whose library leads out of its folder.
    shutil.copytree(triton / "backends" / "python", stage / "backends" / "python")
    shutil.copytree(OURS / "onnxruntime", stage / "backends" / "onnxruntime", ignore=_not_sources)
    stub_program = stage / "backends" / "python" / "triton_python_backend_stub"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copyfile(triton / "python_backend_stubs" / version / stub_program.name, stub_program)
    stub_program.chmod(0o755)

    libraries = _library_folders(wheel)
    # The copied stub looks for the wheel's libraries beside itself and finds them through LD_LIBRARY_PATH.
    require_libraries([program, stub_program, stage / "backends" / "python" / "libtriton_python.so"], libraries)

    shim = stage / "bin" / "tritonserver"
    shim.parent.mkdir()
    shim.write_text(
        SHIM.format(
            libraries=shlex.quote(":".join(libraries)),
            stub_bin=shlex.quote(str(stub / "bin")),
            program=shlex.quote(str(program)),
            backends=shlex.quote(str(final / "backends")),
            caches=shlex.quote(str(triton / "caches")),
            prefix=SEGMENT_PREFIX,
        )
    )
    shim.chmod(0o755)


def _library_folders(wheel: Path) -> list[str]:
    """The wheel's libraries, then wherever this interpreter keeps the libpython that the stub is linked with."""
    candidates = [sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib")]
    library = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    python = [folder for folder in dict.fromkeys(candidates) if folder and (Path(folder) / library).exists()]
    return [str(wheel / "nvidia_pytriton.libs"), *python[:1]]


def _sources() -> list[str]:
    return [path.read_text() for path in sorted(OURS.rglob("*.py"))]


def _not_sources(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]
