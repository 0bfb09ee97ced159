"""Fixtures that more than one area uses."""

import copy
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from gravswell_operator.api.common import Resource
from gravswell_operator.api.manifest import parse

from .real_node.outside import threads_elsewhere

# Where a runner was started in the background SIGINT is ignored, and every program that a test interrupts would inherit
# that; a handler of our own is reset to the default in them.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup, where the runner itself goes on
    signal.signal(signal.SIGHUP, lambda *_: None)

# gRPC ends its threads before a fork and starts them again after it, from the thread that forked: where that is in
# another network, as tests of a real node are, they would work from there from then on.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

os.environ.pop("COLUMNS", None)  # read once, by what prints, it would win over the widths that tests set

# An example takes as long as the machine lets it: 200 ms, which is Hypothesis's own bound, is nothing on a busy one.
settings.register_profile("gravswell", parent=settings(), deadline=None)
settings.load_profile("gravswell")

TOGETHER = (
    "control_plane/faults",
    "control_plane/autoscaling",
    "control_plane/pools",
    "control_plane/reconciling",
    "control_plane/serving",
    "control_plane/gateway",
    "control_plane",
    "chart",
    "demo",
    "quiver/stores",
    "real_node",
    "kind",
)
"""Folders whose tests one worker runs: they share servers that take seconds to start, or gigabytes. They come first,
in this order: one of them begun last would be waited for with the other worker idle."""

MANIFESTS = Path(__file__).parent / "api/manifests.yaml"


class _Folders(LoadFileScheduling):
    """Under ``-n``: a module to a worker, and of some folders all of them to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        place = _together(nodeid)
        return TOGETHER[place] if place < len(TOGETHER) else super()._split_scope(nodeid)


def _together(nodeid: str) -> int:
    """The place in ``TOGETHER`` of the folder that the test is in; past its end where it is in none."""
    places = range(len(TOGETHER))
    return next((p for p in places if nodeid.startswith(f"tests/{TOGETHER[p]}/")), len(TOGETHER))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("a cluster of yours", "for tests/real_node/test_whole_path.py")
    group.addoption("--context", metavar="NAME", help="run it there, by this context of your kubeconfig")
    group.addoption("--images", metavar="REGISTRY", default="ghcr.io/gravswell", help="where its images are from")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    config.option.loadscopereorder = False  # most tests first is not longest first
    return _Folders(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _together(item.nodeid))


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


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a test sets up for the process's log ends with it: the next would write to a stream that is closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="module", autouse=True)
def _one_network() -> Iterator[None]:
    """A module whose tests work in a network of their own leaves no thread there.

    What a library keeps for a whole process, as gRPC does its threads, would work for the next module from there.
    """
    yield
    if not Path("/proc/thread-self").exists():  # only Linux has such networks
        return
    end = time.monotonic() + 60
    while threads_elsewhere() and time.monotonic() < end:
        time.sleep(0.01)  # one that was joined is seen for a moment more
    assert threads_elsewhere() == [], "threads were left in another network"


@pytest.fixture(scope="session")
def manifest() -> Callable[..., dict[str, Any]]:
    """``manifest(kind, *changes) -> dict``: the good manifest of a kind, with JSON merge patches applied."""
    good = yaml.safe_load(MANIFESTS.read_text())["good"]

    def make(kind: str, *changes: dict[str, Any] | None) -> dict[str, Any]:
        made = {"apiVersion": "gravswell.dev/v1alpha1", "kind": kind, **good[kind]}
        for change in changes:
            made = _merged(made, change or {})
        return made

    return make


@pytest.fixture
def resource(manifest) -> Callable[..., Any]:
    """``resource(kind, change={}) -> the typed object``, in namespace ``ns`` where its kind has one."""

    def make(kind: str, change: dict[str, Any] | None = None) -> Resource:
        parsed = parse(manifest(kind, change))
        if kind == "GPUNodePool":
            return parsed
        return parsed.model_copy(update={"metadata": parsed.metadata.model_copy(update={"namespace": "ns"})})

    return make
