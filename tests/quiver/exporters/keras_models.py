"""Keras models that more than one test module exports."""

from typing import Any

import keras


def sequential(*inner: Any, shape: tuple[int | None, ...] = (4,), **how: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape, name="x", **how), *inner])
