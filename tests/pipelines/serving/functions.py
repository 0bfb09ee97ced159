"""Pipelines of the tests, as users write them. What servers get of them is their source."""

import numpy as np
import packaging
import pyclipper

from gravswell import quiver as qv


@qv.pipeline(inputs={"x": ("FP32", (None, 4))}, output_names=["z", "rounds"])
def power(x, *, double):
    """A loop and a branch on values; text in what it raises."""
    if not np.isfinite(x).all():
        raise ValueError("x must be finite: größer geht nicht")
    rounds = np.zeros((1,), np.int64)
    while x.max() < 100:
        x = double(x)
        rounds += 1
    return {"z": x, "rounds": rounds}


@qv.pipeline(output_names=["z"])
def four(x, *, double):
    """Tensors passed on and nothing else: an ensemble."""
    return double(double(x))


def after(x, *, anything, double):
    """The first member takes rows of any size, the second one of four."""
    return double(anything(x))


@qv.pipeline(output_names=["z"], access="public")
def eight(x, *, triple, double):
    """A pipeline that opens its members to clients."""
    return double(triple(x))


@qv.pipeline(inputs={"words": ("STRING", (None,))}, outputs={"told": ("STRING", (None,)), "sizes": ("FP32", (None, 4))})
def telling(words, *, double):
    """Text in, text out."""
    sizes = np.array([[len(word), 0, 0, 0] for word in words], np.float32)
    return np.array([f"{word.upper()} ✓" for word in words], dtype=object), double(sizes)


@qv.pipeline(inputs={"row": ("INT64", (None,))}, output_names=["y"])
def looking(row, *, pick, double):
    """A member that fails for some values, which the function may catch: it then asks another."""
    if row[0] > -100:
        return pick(row)
    try:
        return pick(row)
    except Exception as error:
        if "member 'pick' failed" not in str(error):
            raise
        return double(np.ones((1, 4), np.float32))


@qv.pipeline(inputs={"x": ("FP32", (None, 4))}, output_names=["y"])
def rows(x, *, batched):
    """Served in batches, as its member is."""
    return batched(x) + np.float32(len(x) * 0)


@qv.pipeline(inputs={"x": ("FP32", (None, 4))}, output_names=["y"])
def together(x, *, waiting):
    """Two calls of one member, which waits for the second to run both at once."""
    first, second = waiting.start(x), waiting.start(x + 1)
    return first.result() + second.result()


@qv.pipeline(inputs={"x": ("FP32", (None, 4))}, output_names=["y", "area"])
def packaged(x, *, double):
    """With a package that the server does not have by itself."""
    square = [(0, 0), (3, 0), (3, 3), (0, 3)]
    return double(x), np.array([pyclipper.Area(square)], np.float32)


@qv.pipeline(
    inputs={"x": ("FP32", (None, 4))},
    outputs={"y": ("FP32", (None, 4)), "version": ("STRING", (1,))},
    requirements=["packaging==24.0"],
)
def pinned(x, *, double):
    """With a package that the server has by itself in another version, and so has whoever exports: asked for apart."""
    return double(x), np.array([packaging.__version__ if x.max() > 1000 else "not asked"], dtype=object)


def predict(x, y, **ranks):
    """The oracle: the rows of one matrix over all ranks, for two graphs that hold it."""
    answers = []
    for value in (x + x, y):
        parts = np.split(value, len(ranks), axis=1)
        answers.append(-sum(rank(part) for rank, part in zip(ranks.values(), parts, strict=True)))
    return tuple(answers)


@qv.pipeline(inputs={"x": ("FP32", (None, 4)), "steps": ("INT64", (1,))}, output_names=["state"])
def unrolled(x, steps, *, triple, double):
    """One graph once, and another as often as a client says."""
    state = triple(x)
    for _ in range(min(max(int(steps[0]), 0), 100)):
        state = double(state)
    return state
