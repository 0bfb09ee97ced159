"""What the notebook calls ``utils``: the tree of a repository, and a progress bar that also shows the GPUs.

``from gravswell import utils``. Nothing here imports a framework; the notebook's own torch helpers (``MLP``,
``do_some_inference``…) live in :mod:`gravswell.notebook` and are found here too, when they are asked for.
"""

import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gravswell.errors import NotFoundError

_GAUGE = re.compile(r'^nv_gpu_utilization\{[^}]*gpu_uuid="([^"]+)"[^}]*\}\s+([0-9.eE+-]+)$', re.MULTILINE)


def print_tree(root: str | Path) -> None:
    """Print a folder as a tree: versions in numerical order, hidden names left out."""
    path = Path(root)
    if not path.is_dir():
        raise NotFoundError(f"there is no folder {root}")
    for line in tree_lines(path):
        print(line)


def tree_lines(folder: Path, depth: int = 0) -> Iterable[str]:
    """The lines that :func:`print_tree` prints."""
    yield f"{'    ' * depth}{folder.name or folder}/"
    items = [item for item in folder.iterdir() if not item.name.startswith(".")]
    for item in sorted(items, key=lambda i: (not i.name.isdecimal(), int(i.name) if i.name.isdecimal() else 0, i.name)):
        if item.is_dir():
            yield from tree_lines(item, depth + 1)
        else:
            yield f"{'    ' * (depth + 1)}{item.name}"


class GpuUtilProgress(Progress):
    """rich's progress display with a bar for the use of each GPU, in percent.

    :param gpu_ids: which GPUs to show: one id, several, or all (None).
    :param metrics_url: a Triton's metrics (``http://host:8002/metrics``) to read them from; this machine's by default.
    :param interval: seconds between readings.

    Where there is no GPU, or nothing answers, there are simply no such bars.
    """

    def __init__(
        self,
        gpu_ids: int | Iterable[int] | None = None,
        *columns: Any,
        metrics_url: str | None = None,
        interval: float = 0.5,
        **kwargs: Any,
    ) -> None:
        default = (
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        super().__init__(*(columns or default), **kwargs)
        self._wanted = None if gpu_ids is None else {gpu_ids} if isinstance(gpu_ids, int) else set(gpu_ids)
        self._metrics_url = metrics_url
        self._interval = interval
        self._bars: dict[int, TaskID] = {}
        self._done = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        self._done.clear()
        self._watcher = threading.Thread(target=self._watch, name="gpu-use", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        if self._watcher is not None:
            self._watcher.join(timeout=10)
        super().__exit__(kind, error, traceback)

    def _watch(self) -> None:
        while True:
            used = read_gpu_use(self._metrics_url)
            if not used:
                return
            for gpu, percent in used.items():
                if self._wanted is not None and gpu not in self._wanted:
                    continue
                if gpu not in self._bars:
                    self._bars[gpu] = self.add_task(f"[green]GPU {gpu} utilization", total=100)
                # never finished, or rich would freeze a bar that once stood at 100 %
                self.update(self._bars[gpu], completed=min(percent, 99.9))
            if self._done.wait(self._interval):
                return


def read_gpu_use(metrics_url: str | None = None) -> dict[int, float]:
    """Percent in use of each GPU: of this machine, or of the Triton with these metrics. Empty where there is none."""
    if metrics_url is not None:
        if not metrics_url.startswith(("http://", "https://")):
            return {}
        try:
            with urllib.request.urlopen(metrics_url, timeout=5) as answer:  # noqa: S310 - the scheme is checked above
                text = answer.read().decode(errors="replace")
        except (urllib.error.URLError, OSError):
            return {}
        return {k: 100 * float(value) for k, (_, value) in enumerate(sorted(_GAUGE.findall(text)))}
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        answered = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    found = (line.split(",") for line in answered.stdout.splitlines() if line.count(",") == 1)
    return {int(index): float(use) for index, use in found if use.strip().replace(".", "", 1).isdecimal()}


def __getattr__(name: str) -> Any:
    if name in (
        "MLP",
        "NoiseRemovalModel",
        "do_some_inference",
        "do_some_throttled_inference",
        "parallel_inference_task",
    ):
        from gravswell import notebook  # noqa: PLC0415 - imports torch

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
