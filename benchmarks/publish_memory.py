"""Peak memory while a large model with external data is published and fetched, in processes of their own.

``python benchmarks/publish_memory.py`` takes a folder, and a bucket of each kind on servers that it starts here
(fake-gcs-server and azurite hold all of it in memory, versitygw on a disk); ``--to local --to s3`` only these, ``--to
URL`` any other, in a folder ``gravswell-benchmark`` there, which must not hold anything and is deleted afterwards.
``--gigabytes 3`` needs five times that on the disk of TMPDIR, and twice that at the URL. It exits with 1 if the bar is
missed.

- *runtime*: ONNX Runtime alone, in a process that opens the model by its path and asks it once. The limit for an
  export, which has to do that too: twice, one after the other.
- *export*: ``export_version`` of an ONNX file: the model is proved in ONNX Runtime, hashed and published. The runtime
  maps the model, so what counts is the peak above the model's own size and the imports. The bar: 500 MB.
- *torch*: the same of a torch module as large, into a folder (with ``--to local``). The module is in memory; the
  runtime, which it is proved with, maps the version's file, whose pages are the kernel's to take back when it needs
  them. What counts is the peak of memory that is no file's above the module and the imports. The bar is the same.
- *publish* and *fetch*: the same files through the store alone, which need not hold the model at all. What counts is
  the peak above that of a process that only imports. The bar is the same.

``--within`` asks the same of the kernel, for *export* and *torch*: each is run in a control group (made and removed
here, which takes root) that has as much memory as the model itself, what the imports have that is no file's (measured
just before) and 500 MB, and no swap. All counts that the process has, and the pages of the files that it reads and
writes; not what was in the kernel's memory before, such as pages of Python's libraries. The figure is whether it
publishes there, and how long that takes. TMPDIR must be on a disk: a file system in memory is memory. In version 1 of
control groups the kernel does not slow down who writes files faster than the disk, and may, seldom, kill it for pages
that are still on their way; version 2 does.

A peak is of resident memory, pages of mapped files included (``VmHWM``): the weights count whether ONNX Runtime has
them in memory of its own or mapped. That of memory which is no file's is sampled (``RssAnon``), every few milliseconds.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from bars import at_most, hold
from child_memory import Ended, Group, Peak, limited, run
from onnx import TensorProto, helper
from store_transfer import SERVERS, served

from gravswell.errors import GravswellError

BAR = 500e6
FOLDER = "gravswell-benchmark"
GROUP = f"gravswell-publish-memory-{os.getpid()}"
WIDTH = 8192


def main() -> None:
    """Measure and print; exits with 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--to", action="append", help=f"local, {', '.join(SERVERS)}, or a URL")
    parser.add_argument("--within", action="store_true", help="export with no more memory than the bar allows (root)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step](*options.rest)
        return
    if options.within:
        try:
            with limited(GROUP, int(BAR)):
                pass  # said before gigabytes are written
        except GravswellError as error:
            parser.error(f"--within: {error}")
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as folder:
        model = Path(folder, "source", "model.onnx")
        model.parent.mkdir()
        layers = round(options.gigabytes * 1e9 / (WIDTH * WIDTH * 4))
        size = write_model(model, layers)
        measure = within if options.within else partial(peaks, *alone(model, size))
        for target in options.to or ["local", *SERVERS]:
            with place(target, Path(folder)) as url:
                missed += measure(url, model, size, layers if target == "local" else 0)
    hold(missed)


def alone(model: Path, size: int) -> tuple[float, float]:
    """Bytes of a process that only imports, and of ONNX Runtime with the model beyond its imports; print the latter."""
    runtime = peak("runtime", str(model)).all - peak("import-runtime").all
    show(str(model), "runtime", runtime - size, "above the model and the imports")
    return peak("import").all, runtime


def peaks(base: float, runtime: float, url: str, model: Path, size: int, layers: int) -> list[str]:
    """Print what each step has in memory at most. Returns a line for each that misses the bar.

    :param base: with ``runtime``, what :func:`alone` returns.
    :param size: the bytes of the model.
    :param layers: of the torch module; 0 leaves it out.
    """
    extra = peak("export", url, str(model)).all - peak("import-export").all
    missed = show(url, "export", extra - size, f"above the model and the imports, {extra / runtime:.2f} x runtime")
    missed += show(url, "publish", peak("publish", url, str(model)).all - base, "above the imports")
    fetched = model.parents[1] / "fetched"
    missed += show(url, "fetch", peak("fetch", url, str(fetched)).all - base, "above the imports")
    shutil.rmtree(fetched)
    if layers:
        torch, imports = peak("torch", url, str(layers)), peak("import-torch")
        pages = f"at its peak {(torch.all - torch.own) / 1e6:.0f} MB or more of files' pages"
        missed += show(url, "torch", torch.own - imports.own - size, f"above the module and the imports; {pages}")
    return missed


def within(url: str, model: Path, size: int, layers: int) -> list[str]:
    """Print whether the export is done in as much memory as the bar allows. Returns a line for each that is not.

    The parameters are those of :func:`peaks`.
    """
    missed = []
    steps = {"export": str(model), "torch": str(layers)} if layers else {"export": str(model)}
    for step, what in steps.items():
        imports = peak(f"import-{step}").own
        forget(model.parent)
        with limited(GROUP, int(size + imports + BAR)) as group:
            ended = child(step, url, what, group=group)
            assert group.killed or ended.late or not ended.code, f"{step} {url} failed"
        done = "published" if not ended.code else "not done" if ended.late else "killed"
        parts = f"{size / 1e6:,.0f} MB of the model, {imports / 1e6:.0f} MB of the imports and {BAR / 1e6:.0f} MB"
        told = f"{done} within {parts}, after {ended.seconds:.0f} s"
        print(f"{url} {step}: {told}: {'met' if done == 'published' else 'missed'}", flush=True)
        if done != "published":
            missed.append(f"{url} {step}: {told}, and the bar is that it publishes")
    return missed


def forget(folder: Path) -> None:
    """Have the kernel drop the pages that it holds of the files there: they count for who brings them in again."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def place(target: str, folder: Path) -> Iterator[str]:
    """The URL of a repository that is empty, and gone afterwards."""
    if target in SERVERS:
        with served(target, folder) as url:
            yield f"{url}/memory"
    elif target == "local":
        yield str(folder / "repository")
        shutil.rmtree(folder / "repository")
    else:
        with own_folder(target) as url:
            yield url


@contextmanager
def own_folder(url: str) -> Iterator[str]:
    """A repository of ours beside whatever is at ``url``; SystemExit if there is one already."""
    from gravswell import quiver as qv  # noqa: PLC0415 - here, and in the steps: not in every child
    from gravswell.quiver.stores import open_store  # noqa: PLC0415

    own = f"{url.rstrip('/')}/{FOLDER}"
    found = open_store(own, create=True).children()
    held = ", ".join((*found.folders, *found.files))
    if held:
        raise SystemExit(f"{own} holds {held}: delete what an earlier run left there, or give another URL")
    try:
        yield own
    finally:
        qv.ModelRepository(own).delete()


def show(url: str, step: str, extra: float, above: str) -> list[str]:
    """Print one line, and return another if it misses the bar."""
    missed = at_most(f"{url} {step}, memory {above}", round(extra / 1e6), BAR / 1e6, " MB")
    print(f"{url} {step}: {extra / 1e6:.0f} MB {above}: {'missed' if missed else 'met'}", flush=True)
    return missed


def peak(step: str, *arguments: str) -> Peak:
    """The peaks of a process."""
    ended = child(step, *arguments)
    assert not ended.code, f"{step} {arguments} failed"
    return ended.peak


def child(step: str, *arguments: str, group: Group | None = None) -> Ended:
    """Run a step in a process of its own, in ``group`` if it is given, and print its peaks."""
    ended = run([sys.executable, __file__, "--step", step, "--", *arguments], group)
    told = f"peak {ended.peak.all / 1024e3:.0f} MB, {ended.peak.own / 1e6:.0f} MB of them no file's"
    print(f"  {step}: {told}, {ended.seconds:.0f} s", flush=True)
    return ended


def write_model(path: Path, layers: int) -> int:
    """So many matrix products in a row, with their weights in files beside it. Returns the bytes of all of it."""
    nodes, weights = [], []
    rng = np.random.default_rng(1)
    for i in range(max(1, layers)):
        row = (rng.standard_normal((1, WIDTH), dtype=np.float32) / WIDTH).tobytes()  # equal weights would be shared
        weight = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", f"w{i}.bin"), ("offset", "0"), ("length", str(WIDTH * WIDTH * 4))):
            weight.external_data.add(key=key, value=value)
        weights.append(weight)
        with (path.parent / f"w{i}.bin").open("wb") as sink:
            for start in range(WIDTH):
                sink.write(row[4 * (start % WIDTH) :] + row[: 4 * (start % WIDTH)])
        nodes.append(helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}"]))
    nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    onnx.checker.check_model(str(path))
    return sum(file.stat().st_size for file in path.parent.iterdir())


def _import_runtime() -> None:
    import onnxruntime  # noqa: F401, PLC0415


def _runtime(model: str) -> None:
    import onnxruntime as ort  # noqa: PLC0415

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((5, WIDTH), np.float32)})


def _import() -> None:
    _publish("", "")


def _import_export() -> None:
    from gravswell import quiver as qv  # noqa: F401, PLC0415
    from gravswell.quiver import exporters  # noqa: F401, PLC0415


def _export(url: str, model: str) -> None:
    from gravswell import quiver as qv  # noqa: PLC0415

    qv.ModelRepository(url).add("exported").export_version(model)


def _import_torch() -> None:
    _import_export()
    from gravswell.quiver.exporters.torch import export  # noqa: F401, PLC0415


def _torch(url: str, layers: str) -> None:
    import torch  # noqa: PLC0415

    from gravswell import quiver as qv  # noqa: PLC0415

    class Products(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # small beside the row itself, or the rounding of so many products would be what is compared
            made = (torch.empty(WIDTH, WIDTH).normal_(std=0.1 * WIDTH**-0.5) for _ in range(max(1, int(layers))))
            self.weights = torch.nn.ParameterList(made)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for weight in self.weights:
                x = x + x @ weight
            return x

    qv.ModelRepository(url).add("torch").export_version(Products(), {"x": (None, WIDTH)})


def _publish(url: str, model: str) -> None:
    """The exported version's own files, as another entry: nothing but the store is at work."""
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.quiver.manifest import MANIFEST  # noqa: PLC0415

    if not url:
        return
    repository = qv.ModelRepository(url)
    repository.add("published")
    store = repository.models["published"]._store
    with store.staging() as stage:
        for file in Path(model).parent.iterdir():
            if url.startswith("/"):
                os.link(file, stage / file.name)
            else:
                (stage / file.name).symlink_to(file)
        (stage / MANIFEST).write_bytes(b"{}")
        store.publish(stage, "published/1")


def _fetch(url: str, destination: str) -> None:
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415

    RepositoryReader(url).fetch("exported", 1, Path(destination))


STEPS = {
    "import": _import,
    "import-runtime": _import_runtime,
    "import-export": _import_export,
    "import-torch": _import_torch,
    "runtime": _runtime,
    "export": _export,
    "torch": _torch,
    "publish": _publish,
    "fetch": _fetch,
}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was made is removed then too
    main()
