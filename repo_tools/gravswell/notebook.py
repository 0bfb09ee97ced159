"""The torch helpers of the project's notebook: what its cells call ``utils.MLP``, ``utils.do_some_inference``…

They are in a module of their own because processes that are spawned can only import what they run from one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""Shape ``(rows, features)``."""

TAKEN_SECONDS = 60.0
"""How long a job waits for its results to be taken: who fails meanwhile takes none."""


def device(index: int = 0) -> torch.device:
    """The GPU of that index, or the CPU on a machine without one."""
    return torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")


class MLP(torch.nn.Module):
    """Linear and ReLU layers of ``hidden_sizes``, then one sigmoid output: ``(batch, input_size) → (batch, 1)``."""

    def __init__(self, input_size: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList()
        for size in hidden_sizes:
            self.layers.append(torch.nn.Linear(input_size, size))
            self.layers.append(torch.nn.ReLU())
            input_size = size
        self.layers.append(torch.nn.Linear(input_size, 1))
        self.layers.append(torch.nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, input_size) → (batch, 1)``."""
        for layer in self.layers:
            x = layer(x)
        return x


class NoiseRemovalModel(torch.nn.Module):
    """An autoencoder of ``hidden_sizes`` and back: ``(batch, input_size) → (batch, input_size)``."""

    def __init__(self, input_size: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = [input_size, *hidden_sizes, *reversed(hidden_sizes[:-1]), input_size]
        layers: list[torch.nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        self.layers = torch.nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, input_size) → (batch, input_size)``."""
        cleaned: torch.Tensor = self.layers(x)
        return cleaned


def do_some_inference(
    model: torch.nn.Module, dataset: Rows, batch_size: int = 8, device_index: int = 0
) -> Iterator[Rows]:
    """The model's outputs, batch after batch, with the whole data set on the device from the start."""
    rows = torch.from_numpy(dataset).to(device(device_index))
    with torch.no_grad():
        for batch in torch.split(rows, batch_size):
            yield model(batch).cpu().numpy()


def do_some_throttled_inference(
    model: torch.nn.Module, dataset: Rows, batch_size: int = 8, device_index: int = 0
) -> Iterator[Rows]:
    """The same from a source that takes a millisecond for each row."""
    rows = torch.from_numpy(dataset).to(device(device_index))
    with torch.no_grad():
        for batch in torch.split(rows, batch_size):
            time.sleep(0.001 * len(batch))
            yield model(batch).cpu().numpy()


def parallel_inference_task(  # noqa: PLR0917 - torch.multiprocessing.spawn passes by position
    rank: int,
    dataset: Rows,
    model_class: Callable[..., torch.nn.Module],
    model_args: Sequence[Any],
    inference: Callable[..., Iterator[Rows]],
    results: Any,
    sync: Any,
    jobs_per_gpu: int,
    num_gpus: int,
) -> None:
    """One of ``num_gpus * jobs_per_gpu`` processes: its share of the rows, once all of them are ready.

    ``sync`` is a shared value that each process increments; the parent adds one more to let them go. A process ends
    when the parent has taken all that is in ``results``, a queue of :mod:`multiprocessing`.
    """
    jobs, index = num_gpus * jobs_per_gpu, rank // jobs_per_gpu
    model = model_class(*model_args).to(device(index)).eval()
    share = np.array_split(dataset, jobs)[rank]
    with sync.get_lock():
        sync.value += 1
    while sync.value <= jobs:
        time.sleep(0.01)
    for outputs in inference(model, share, device_index=index):
        results.put(outputs)
    # The notebook's loop ends when it finds nothing and all jobs have ended: what came between the two would be lost.
    until = time.monotonic() + TAKEN_SECONDS
    while results.qsize() and time.monotonic() < until:
        time.sleep(0.01)
