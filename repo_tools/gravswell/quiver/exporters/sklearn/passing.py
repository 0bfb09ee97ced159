"""Pipelines as their converter takes them: without the steps that pass everything through."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gravswell.quiver.exporters.sklearn.scale import parts, works


@contextmanager
def without_passthrough(model: Any) -> Iterator[None]:
    """While the context is open no pipeline in the model has such a step; afterwards they are as they were."""
    before = [(part, part.steps) for part in parts(model) if hasattr(part, "steps")]
    try:
        for pipeline, steps in before:
            pipeline.steps = [(name, step) for name, step in steps if works(step)] or steps
        yield
    finally:
        for pipeline, steps in before:
            pipeline.steps = steps
