"""Pipelines in a file, as users write them."""

from typing import Any

import numpy as np
from numpy.linalg import norm

from gravswell import quiver as qv

BIAS = np.arange(4, dtype=np.float32)
LIMITS = {"low": -1.5, "high": (3, float("inf"))}


@qv.pipeline(output_names=["z"])
def six(x: Any, *, double: Any, triple: Any) -> Any:
    """Passes tensors on, and nothing else."""
    return triple(double(x))


def shifted(x: Any, by: Any = BIAS) -> Any:
    """Uses a module's array as a default."""
    return np.clip(x + by, LIMITS["low"], LIMITS["high"][0])  # type: ignore[index]


@qv.pipeline(inputs={"x": ("FP32", (None, 4)), "times": ("INT32", (1,))}, output_names=["z"])
def repeated(x: Any, times: Any, *, double: Any, triple: Any) -> Any:
    """Functions on values, a loop over them, and a branch."""
    x = triple(shifted(x))
    for _ in range(int(times[0]) % 3):
        x = double(x)
    return x if times[0] else x / norm(BIAS)
