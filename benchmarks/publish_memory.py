"""Peak memory while a large model with external data is published and fetched, in processes of their own.

``python benchmarks/publish_memory.py`` takes a folder, and a bucket of each kind on servers that it starts here
(fake-gcs-server and azurite hold all of it in memory, versitygw on a disk); ``--to local --to s3`` only these, ``--to
URL`` any other, in a folder ``gravswell-benchmark`` there, which must not hold anything and is deleted afterwards.
``--gigabytes 3`` needs five times that on the disk of TMPDIR, and twice that at the URL.

- *runtime*: ONNX Runtime alone, in a process that opens the model by its path and asks it once. The limit for an
  export, which has to do that too: twice, one after the other.
- *export*: ``export_version`` of an ONNX file: the model is proved in ONNX Runtime, hashed and published. The runtime
  maps the model, so what counts is the peak above the model's own size and the imports. The bar: 500 MB.
- *torch*: the same of a torch module as large, into a folder (with ``--to local``). The module is in memory; the
  runtime, which it is proved with, maps the version's file, whose pages are the kernel's to take back when it needs
  them. What counts is the peak of memory that is no file's above the module and the imports. The bar is the same.
- *publish* and *fetch*: the same files through the store alone, which need not hold the model at all. What counts is
  the peak above that of a process that only imports. The bar is the same.

A peak is of resident memory, pages of mapped files included (``ru_maxrss``): the weights count whether ONNX Runtime has
them in memory of its own or mapped. That of memory which is no file's is sampled (``RssAnon``), every few milliseconds.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from store_transfer import SERVERS, served

BAR = 500e6
FOLDER = "gravswell-benchmark"
WIDTH = 8192
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--to", action="append", help=f"local, {', '.join(SERVERS)}, or a URL")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step](*options.rest)
        return
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as folder:
        model = Path(folder, "source", "model.onnx")
        model.parent.mkdir()
        layers = round(options.gigabytes * 1e9 / (WIDTH * WIDTH * 4))
        size = write_model(model, layers)
        base = peak("import").all
        runtime = peak("runtime", str(model)).all - peak("import-runtime").all
        show(str(model), "runtime", runtime - size, "above the model and the imports")
        for target in options.to or ["local", *SERVERS]:
            with place(target, Path(folder)) as url:
                extra = peak("export", url, str(model)).all - peak("import-export").all
                show(url, "export", extra - size, f"above the model and the imports, {extra / runtime:.2f} x runtime")
                show(url, "publish", peak("publish", url, str(model)).all - base, "above the imports")
                show(url, "fetch", peak("fetch", url, str(Path(folder, "fetched"))).all - base, "above the imports")
                shutil.rmtree(Path(folder, "fetched"))
                if target == "local":
                    torch, imports = peak("torch", url, str(layers)), peak("import-torch")
                    pages = f"at its peak {(torch.all - torch.own) / 1e6:.0f} MB or more of files' pages"
                    show(url, "torch", torch.own - imports.own - size, f"above the module and the imports; {pages}")


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


def show(url: str, step: str, extra: float, above: str) -> None:
    """One line."""
    said = "met" if extra <= BAR else f"over {BAR / 1e6:.0f} MB"
    print(f"{url} {step}: {extra / 1e6:.0f} MB {above}: {said}", flush=True)


@dataclass(frozen=True)
class Peak:
    """Bytes of resident memory: ``all`` of it, and its ``own``, which is no file's."""

    all: float
    own: float


def peak(step: str, *arguments: str) -> Peak:
    """The peaks of a process."""
    begin = time.perf_counter()
    child = subprocess.Popen([sys.executable, __file__, "--step", step, "--", *arguments])
    own, ended = 0.0, 0
    while not ended:
        own = max(own, anonymous(child.pid))
        time.sleep(0.005)
        ended, status, used = os.wait4(child.pid, os.WNOHANG)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, f"{step} {arguments} failed"
    told = f"peak {used.ru_maxrss / 1000:.0f} MB, {own / 1e6:.0f} MB of them no file's"
    print(f"  {step}: {told}, {time.perf_counter() - begin:.0f} s", flush=True)
    return Peak(used.ru_maxrss * 1024.0, own)


def anonymous(pid: int) -> float:
    """Bytes that the process has in memory and that are no file's; 0 of one that has ended."""
    found = _ANONYMOUS.search(Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024.0 if found else 0.0


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
            made = (torch.empty(WIDTH, WIDTH).normal_(std=WIDTH**-0.5) for _ in range(max(1, int(layers))))
            self.weights = torch.nn.ParameterList(made)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for weight in self.weights:
                x = x @ weight
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
    main()
