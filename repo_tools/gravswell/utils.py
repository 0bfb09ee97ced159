"""What the notebook calls ``utils``: the tree of a repository, and a progress bar that also shows the GPUs.

``from gravswell import utils``. Nothing here imports a framework; the notebook's own torch helpers (``MLP``,
``do_some_inference``…) live in :mod:`gravswell.notebook` and are found here too, when they are asked for.
"""

import http.client
import os
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from gravswell import addresses
from gravswell.errors import NotFoundError

_GAUGE = re.compile(r'^nv_gpu_utilization\{[^}]*gpu_uuid="([^"]+)"[^}]*\}\s+([0-9.eE+-]+)$', re.MULTILINE)

METRICS_VARIABLE = "GRAVSWELL_METRICS_URL"
"""Environment variable: the metrics of the servers whose GPUs are shown where none are named."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""As the client does: no proxy of the environment reaches a server on this machine or in a cluster."""


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
    """rich's progress display with rows/s, and a bar for the use of each GPU, in percent.

    :param gpu_ids: which GPUs to show: one id, several, or all (None).
    :param metrics_url: the metrics of a Triton, ``http://host:8002/metrics``, or of several, to read them from;
        without it those that :data:`METRICS_VARIABLE` names, with commas, and without that this machine's.
    :param interval: seconds between readings.

    A server's GPUs are numbered as they are found, by UUID. Where there is no GPU, or nothing answers, there are simply
    no such bars; a server that answers later gets its own then.
    """

    def __init__(
        self,
        gpu_ids: int | Iterable[int] | None = None,
        *columns: Any,
        metrics_url: str | Iterable[str] | None = None,
        interval: float = 0.5,
        **kwargs: Any,
    ) -> None:
        default = (
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
        )
        super().__init__(*(columns or default), **kwargs)
        self._wanted = None if gpu_ids is None else {gpu_ids} if isinstance(gpu_ids, int) else set(gpu_ids)
        self._urls = _urls(metrics_url)
        self._interval = interval
        self._numbers: dict[str, int] = {}
        self._bars: dict[int, TaskID] = {}
        self._done = threading.Event()

    def __enter__(self) -> Self:
        super().__enter__()
        self._done = threading.Event()  # a new one: the last watcher may still wait for metrics that do not answer
        if not self.disable:
            threading.Thread(target=self._watch, args=[self._done], name="gpu-use", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        super().__exit__(kind, error, traceback)

    def _watch(self, done: threading.Event) -> None:
        while True:
            used = _use_by_uuid(self._urls)
            if done.is_set() or (not used and not self._urls):
                return  # or this machine has none, and will not get one
            for uuid, percent in used.items():
                gpu = self._numbers.setdefault(uuid, int(uuid) if not self._urls else len(self._numbers))
                if self._wanted is not None and gpu not in self._wanted:
                    continue
                if gpu not in self._bars:
                    self._bars[gpu] = self.add_task(f"[green]GPU {gpu} utilization", total=100, gpu=True)
                # never finished, or rich would freeze a bar that once stood at 100 %
                self.update(self._bars[gpu], completed=min(percent, 99.9))
            if done.wait(self._interval):
                return


class _Rate(ProgressColumn):
    """Rows/s of what counts rows."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None or task.fields.get("gpu") else f"{speed:,.0f}/s", style="progress.data.speed")


def metrics_urls(servers: Iterable[str], port: int = 8002) -> list[str]:
    """Where the Tritons at ``servers`` (``host:port`` of any of their ports) tell their metrics."""
    return [f"http://{addresses.join(addresses.split(server)[0], port)}/metrics" for server in servers]


def read_gpu_use(metrics_url: str | Iterable[str] | None = None) -> dict[int, float]:
    """Percent in use of each GPU: of this machine, or of the Tritons with these metrics. Empty where there is none.

    Those of Tritons are numbered server by server, in the order of their UUIDs.
    """
    urls = _urls(metrics_url)
    used = _use_by_uuid(urls)
    return dict(enumerate(used.values())) if urls else {int(index): percent for index, percent in used.items()}


def _urls(metrics_url: str | Iterable[str] | None) -> list[str]:
    if metrics_url is None:
        metrics_url = [url for url in os.environ.get(METRICS_VARIABLE, "").split(",") if url]
    return [metrics_url] if isinstance(metrics_url, str) else list(metrics_url)


def _use_by_uuid(urls: Sequence[str]) -> dict[str, float]:
    """Percent by UUID, of servers, or by index where there are no ``urls``, of this machine."""
    if not urls:
        return _use_here()
    used: dict[str, float] = {}
    for url in urls:
        if not url.startswith(("http://", "https://")):
            continue
        try:
            with _direct.open(url, timeout=5) as answer:
                text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            continue  # it restarts, or tells no metrics: what is shown is about those that do
        used |= gpu_use(text)
    return used


def gpu_use(metrics: str) -> dict[str, float]:
    """Percent in use of each GPU, by UUID and in their order, in what a Triton tells at ``/metrics``."""
    return {uuid: 100 * float(value) for uuid, value in sorted(_GAUGE.findall(metrics))}


def _use_here() -> dict[str, float]:
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        answered = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    found = (line.split(",") for line in answered.stdout.splitlines() if line.count(",") == 1)
    return {index.strip(): float(use) for index, use in found if use.strip().replace(".", "", 1).isdecimal()}


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
