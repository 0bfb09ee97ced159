"""Which batches a Triton ran, by its own count."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gravswell.serving.triton import EmbeddedTriton

COUNTED_SECONDS = 90.0


@contextmanager
def counted_batches(server: EmbeddedTriton, model: str, rows: int) -> Iterator[Counter[int]]:
    """How many batches of which size version 1 of ``model`` ran meanwhile, known at the end.

    Triton counts a batch just after it has answered it: so the end waits until all ``rows`` that were asked for are.
    """
    found: Counter[int] = Counter()
    before = _batches(server, model)
    yield found
    end = time.monotonic() + COUNTED_SECONDS
    while sum((counted := _batches(server, model) - before).elements()) < rows:
        assert time.monotonic() < end, f"{rows} rows were asked for, and {model} counts batches of {dict(counted)}"
        time.sleep(0.01)
    found.update(counted)


def _batches(server: EmbeddedTriton, model: str) -> Counter[int]:
    stats = server.control.statistics(model, 1).get("batch_stats", [])
    return Counter({int(one["batch_size"]): int(one["compute_infer"]["count"]) for one in stats})
