"""How recorded samples travel to a Triton and back: in pieces that it accepts, and in ranks that it knows."""

from collections.abc import Mapping, Sequence

import numpy as np

from gravswell.quiver.golden import Array


def pieces(inputs: Mapping[str, Array], max_batch_size: int) -> list[dict[str, Array]]:
    """The sample in pieces that the model accepts: its rows are independent where it can batch at all."""
    rows = max((len(value) for value in inputs.values() if value.ndim), default=1)
    if max_batch_size <= 0 or rows <= max_batch_size:
        return [dict(inputs)]
    return [
        {name: value[start : start + max_batch_size] for name, value in inputs.items()}
        for start in range(0, rows, max_batch_size)
    ]


def with_rank(value: Array, rank: int) -> Array:
    """Triton carries no scalars: one is declared with dims [1], here a trailing dimension of 1."""
    return value.reshape(value.shape + (1,) * (rank - value.ndim)) if value.ndim < rank else value


def joined(parts: Sequence[Mapping[str, Array]], expected: Mapping[str, Array]) -> dict[str, Array]:
    """The pieces' answers as one, in the shapes that were recorded."""
    whole = {}
    for name, wanted in expected.items():
        value = parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts])
        whole[name] = value.reshape(wanted.shape) if value.ndim > wanted.ndim and value.size == wanted.size else value
    return whole
