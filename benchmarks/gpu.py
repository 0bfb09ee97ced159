"""What was proved on a CPU, run on a GPU: how far the answers are from the framework's, and what a call takes.

``python benchmarks/gpu.py [--rows 8] [--gpu-only] [--calls 50] [--rounds 5] [--provider CUDA] [--output json]``

It needs an NVIDIA GPU, ``onnxruntime-gpu`` in place of ``onnxruntime``, and the extras ``sklearn`` and ``torch``. Each
model is exported and proved as ever (the golden batches are the framework's own, on the CPU), and then run by ONNX
Runtime's CUDA provider, as Triton's backend does: as it is by default, where products may be computed in TF32, and
without that. The golden batches are compared in two ways: as on a CPU, and as ``verify --server`` and every agent do
where a model runs on a GPU. A fusion is held to its single models on the same provider, and must refuse an id that
nobody has.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neural_network import MLPClassifier

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit
from gravswell.errors import GravswellError, VerificationError
from gravswell.quiver.config import parse_config
from gravswell.quiver.golden import column_scales, compare
from gravswell.quiver.manifest import VERSION_CONFIG
from gravswell.serving.golden import Golden, read_golden

Tensors = Mapping[str, NDArray[Any]]
Settings = Mapping[str, tuple[str, bool]]


class Convolutions(torch.nn.Module):
    """Images of 3 x 64 x 64 to ten scores, by eight residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Conv2d(64, 64, 3, padding=1),
                torch.nn.BatchNorm2d(64),
                torch.nn.ReLU(),
                torch.nn.Conv2d(64, 64, 3, padding=1),
                torch.nn.BatchNorm2d(64),
            )
            for _ in range(8)
        )
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [n, 3, 64, 64] to ``y`` [n, 10]."""
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        scores: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return scores


class Attention(torch.nn.Module):
    """Encoder layers of MiniLM's size over 64 vectors."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(384, 12, 1536, dropout=0.0, activation="gelu", batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [n, 64, 384] to the mean of the last layer's vectors [n, 384]."""
        means: torch.Tensor = self.layers(x).mean(dim=1)
        return means


class Recurrent(torch.nn.Module):
    """Two LSTM layers over 32 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(64, 128, 2, batch_first=True)
        self.head = torch.nn.Linear(128, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [n, 32, 64] to ``y`` [n, 5]."""
        scores: torch.Tensor = self.head(self.lstm(x)[0][:, -1])
        return scores


def multilayer(size: int, hidden: int) -> torch.nn.Module:
    """An MLP of two hidden layers."""
    return torch.nn.Sequential(
        torch.nn.Linear(size, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, 10),
    )


def models() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each model, and what its export is told."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32)
    return {
        "digits": (MLPClassifier((64,), max_iter=60, random_state=0).fit(images, labels), {}),
        "trees": (HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(images, labels), {}),
        "mlp": (multilayer(64, 256).eval(), {"input_shapes": {"x": (None, 64)}, "output_names": ["y"]}),
        "large-mlp": (multilayer(1024, 4096).eval(), {"input_shapes": {"x": (None, 1024)}, "output_names": ["y"]}),
        "convolutions": (Convolutions().eval(), {"input_shapes": {"x": (None, 3, 64, 64)}, "output_names": ["y"]}),
        "attention": (Attention(6).eval(), {"input_shapes": {"x": (None, 64, 384)}, "output_names": ["y"]}),
        "deep-attention": (Attention(24).eval(), {"input_shapes": {"x": (None, 64, 384)}, "output_names": ["y"]}),
        "lstm": (Recurrent().eval(), {"input_shapes": {"x": (None, 32, 64)}, "output_names": ["y"]}),
    }


class Load(NamedTuple):
    """What is timed: rows of a call, calls of a round, rounds."""

    rows: int
    calls: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Row:
    """One version in one setting. ``strictly`` and ``served`` are why its golden batches do not agree within the bounds
    for a CPU, and within those for where it runs; empty where they do."""

    model: str
    kind: str
    setting: str
    max_abs: float
    max_rel: float
    of_scale: float
    """The largest difference as a share of its column's largest magnitude."""
    microseconds: float
    strictly: str
    served: str


def session(file: Path, provider: str, *, tf32: bool) -> ort.InferenceSession:
    """``file`` in ONNX Runtime by ``provider``, what that lacks on the CPU. ``tf32`` says nothing to the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if provider == "CPU":
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    wanted = [("CUDAExecutionProvider", {"use_tf32": str(int(tf32))}), "CPUExecutionProvider"]
    opened = ort.InferenceSession(str(file), options, providers=wanted)
    if "CUDAExecutionProvider" not in opened.get_providers():
        raise SystemExit("ONNX Runtime has no CUDA here: it needs onnxruntime-gpu, and the CUDA and cuDNN it is for")
    return opened


def answer(opened: ort.InferenceSession, inputs: Tensors) -> dict[str, NDArray[Any]]:
    """The outputs by their names."""
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, dict(inputs)), strict=True))


def microseconds(call: Callable[[], Any], load: Load) -> float:
    """Of one call, by the clock: the median over the rounds."""
    for _ in range(3):
        call()
    taken = []
    for _ in range(load.rounds):
        began = time.perf_counter()
        for _ in range(load.calls):
            call()
        taken.append((time.perf_counter() - began) / load.calls * 1e6)
    return round(statistics.median(taken), 1)


def batch_of(golden: Golden, rows: int) -> dict[str, NDArray[Any]]:
    """So many rows, repeated from the largest golden batch."""
    inputs = max((s.inputs for s in golden.samples), key=lambda i: len(next(iter(i.values()))))
    return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in inputs.items()}


def refusal(golden: Golden, number: int, got: Tensors) -> str:
    """Why a server's answer to that sample is refused; empty where it is not."""
    try:
        golden.check(number, got)
    except VerificationError as error:
        return str(error)
    return ""


def held(model: str, kind: str, setting: str, file: Path, opened: ort.InferenceSession, load: Load) -> Row:
    """``file``'s golden batches on ``opened``, compared as every server compares them."""
    golden = read_golden(file.parent)
    assert golden is not None
    worst_abs = worst_rel = share = 0.0
    strictly = served = ""
    there = golden.on(parse_config((file.parent / VERSION_CONFIG).read_text())) if setting == "CUDA" else golden
    for number, sample in enumerate(golden.samples):
        got = answer(opened, sample.inputs)
        loose = compare(sample.outputs, got, rtol=1e9, atol=1e9)
        worst_abs = max([worst_abs, *(error.max_abs for error in loose.values())])
        worst_rel = max([worst_rel, *(error.max_rel for error in loose.values())])
        for name, scale in golden.scales.items():
            away = np.abs(got[name].astype(np.float64) - sample.outputs[name]) / np.maximum(scale, 1e-30)
            share = max(share, float(away.max(initial=0.0)))
        strictly = strictly or refusal(golden, number, got)
        served = served or refusal(there, number, got)
    batch = batch_of(golden, load.rows)
    spent = microseconds(lambda: opened.run(None, batch), load)
    return Row(model, kind, setting, worst_abs, worst_rel, share, spent, strictly, served)


def settings(provider: str, *, gpu_only: bool) -> Settings:
    """What each version is run in: a provider, and whether products may be TF32."""
    if provider == "CPU":
        return {"CPU": ("CPU", False)}
    on_gpu = {"CUDA": ("CUDA", True), "CUDA without TF32": ("CUDA", False)}
    return on_gpu if gpu_only else {"CPU": ("CPU", False), **on_gpu}


def versions(repo: qv.ModelRepository, where: Settings, load: Load) -> list[Row]:
    """Every model, and its variants of lower precision, in every setting."""
    rows: list[Row] = []
    for name, (model, told) in models().items():
        entry = repo.add(name, qv.Platform.ONNX)
        files = {"float32": Path(entry.export_version(model, **told))}
        for kind in ("fp16", "int8"):
            try:
                files[kind] = Path(entry.quantize(kind, version=1).location)
            except GravswellError as error:
                rows.append(Row(name, kind, "made", 0, 0, 0, 0, "", str(error)))
        for kind, file in files.items():
            for setting, (provider, tf32) in where.items():
                rows.append(held(name, kind, setting, file, session(file, provider, tf32=tf32), load))
    return rows


def fusion(repo: qv.ModelRepository, where: Settings, load: Load) -> dict[str, Any]:
    """Four MLPs as one entry beside the first of them alone, and what an id that nobody has gives."""
    torch.manual_seed(1)
    shapes: dict[str, Any] = {"x": (None, 1024)}
    infos = [
        qv.ModelInfo(multilayer(1024, 2048).eval(), inputs=shapes, output_names=["y"], name=f"m{number}")
        for number in range(4)
    ]
    single = Path(repo.add("single", qv.Platform.ONNX).export_version(infos[0].model, shapes, ["y"]))
    fused = Path(repo.add("zoo", qv.Platform.ONNX).export_version(qv.fuse(infos, "zoo")))
    found: dict[str, Any] = {}
    for setting, (provider, tf32) in where.items():
        alone, zoo = session(single, provider, tf32=tf32), session(fused, provider, tf32=tf32)
        x = np.random.default_rng(2).normal(size=(load.rows, 1024)).astype(np.float32)

        def asked(ids: list[int], zoo: ort.InferenceSession = zoo, x: Any = x) -> dict[str, NDArray[Any]]:
            return answer(zoo, {"model_id": np.array(ids, np.int64), "x": x})

        one, expected = asked([1] * load.rows)["y"], answer(alone, {"x": x})["y"]
        refused = {}
        for wrong in (0, 5, -1, 2**40):
            try:
                asked([1] * (load.rows - 1) + [wrong])
                refused[wrong] = ""
            except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no base of their own
                refused[wrong] = str(error).splitlines()[0]
        recovered = bool(np.array_equal(asked([1] * load.rows)["y"], one))
        spent = {
            "single": microseconds(partial(answer, alone, {"x": x}), load),
            "one id": microseconds(partial(asked, [1] * load.rows), load),
            "four ids": microseconds(partial(asked, [1 + row % 4 for row in range(load.rows)]), load),
        }
        found[setting] = {
            "largestDifference": float(np.abs(one - expected).max()),
            "ofScale": float((np.abs(one - expected) / column_scales([{"y": expected}])["y"]).max()),
            "microseconds": spent,
            "oneIdRatio": round(spent["one id"] / spent["single"], 2),
            "answersAfterRefusal": recovered,
            "refused": {str(k): v for k, v in refused.items()},
        }
    return found


def tables(result: dict[str, Any]) -> Group:
    """The result for a person."""
    made = Table("model", "kind", "on", title=result["device"])
    for heading in ("max abs", "max rel", "of scale", f"us, {result['rows']} rows"):
        made.add_column(heading, justify="right")
    made.add_column("as on a CPU")
    made.add_column("as served")
    for row in result["versions"]:
        figures = (f"{row['max_abs']:.2e}", f"{row['max_rel']:.2e}", f"{row['of_scale']:.2e}", str(row["microseconds"]))
        made.add_row(
            row["model"], row["kind"], row["setting"], *figures, row["strictly"] or "agree", row["served"] or "agree"
        )
    fused = Table("four models as one, on", "us alone", "one id", "four ids", "ratio, one id", "off by", "a bad id")
    for setting, row in result["fusion"].items():
        spent = [str(value) for value in row["microseconds"].values()]
        answered = [number for number, told in row["refused"].items() if not told]
        bad = f"answered: {', '.join(answered)}" if answered else "refused"
        fused.add_row(setting, *spent, str(row["oneIdRatio"]), f"{row['largestDifference']:.2e}", bad)
    return Group(made, fused)


def main() -> None:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8, help="of each timed call")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--provider", choices=("CUDA", "CPU"), default="CUDA", help="CPU: to try the script itself")
    parser.add_argument("--gpu-only", action="store_true", help="for large batches, which take a CPU long")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    if options.provider == "CUDA":
        ort.preload_dlls()  # CUDA's and cuDNN's, of the packages that torch brings
    load = Load(options.rows, options.calls, options.rounds)
    where = settings(options.provider, gpu_only=options.gpu_only)
    device = torch.cuda.get_device_name() if options.provider == "CUDA" else "no GPU"
    with tempfile.TemporaryDirectory() as folder:
        repo = qv.ModelRepository(f"{folder}/repo")
        result = {
            "device": f"{device}, ONNX Runtime {ort.__version__}",
            "rows": load.rows,
            "versions": [asdict(row) for row in versions(repo, where, load)],
            "fusion": fusion(repo, where, load),
        }
    emit(Output(options.output), result, lambda: tables(result))


if __name__ == "__main__":
    main()
