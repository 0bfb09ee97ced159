"""Fixtures that more than one area uses."""

import copy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

# Where a runner was started in the background SIGINT is ignored, and every program that a test interrupts would inherit
# that; a handler of our own is reset to the default in them.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup, where the runner itself goes on
    signal.signal(signal.SIGHUP, lambda *_: None)

MANIFESTS = Path(__file__).parent / "api/manifests.yaml"


def _merged(target: Any, change: Any) -> Any:
    """RFC 7396: maps merge, null removes, everything else replaces."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


@pytest.fixture(scope="session")
def manifest() -> Callable[..., dict[str, Any]]:
    """``manifest(kind, change={}) -> dict``: the good manifest of a kind, with a JSON merge patch applied."""
    good = yaml.safe_load(MANIFESTS.read_text())["good"]

    def make(kind: str, change: dict[str, Any] | None = None) -> dict[str, Any]:
        base = {"apiVersion": "gravswell.dev/v1alpha1", "kind": kind, **good[kind]}
        return _merged(base, change or {})

    return make
