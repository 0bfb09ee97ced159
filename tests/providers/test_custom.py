"""Providers of others: found by their entry points, and what is said where they are not there."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gravswell_operator.api import GPUNodePool
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.pools import Bounds
from gravswell_operator.providers.base import Ask, Cloud
from gravswell_operator.providers.custom import Absent, cloud_of, installed

from .rack import RackServer, install


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for packages that are installed for one test."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("rack", None)


@pytest.fixture
def ask(manifest: Callable[..., dict[str, Any]]) -> Callable[..., Ask]:
    def make(name: str = "rack", nodes: int = 2, **parameters: str) -> Ask:
        provider = {"type": "Custom", "static": None, "custom": {"name": name, "parameters": parameters}}
        change = {"metadata": {"name": "gpus", "uid": "0a1b"}, "spec": {"provider": provider, "size": nodes}}
        pool = GPUNodePool.model_validate(manifest("GPUNodePool", change))
        return Ask(pool, Bounds(nodes, nodes), "9999")

    return make


async def told(cloud: Cloud | None, ask: Ask) -> tuple[Reason | None, str]:
    assert cloud is not None
    state = await cloud.reconcile(ask)
    return (state.problem.reason, state.problem.message) if state.problem is not None else (None, "")


async def test_the_provider_of_the_documentation_makes_sizes_and_removes(
    packages: Path, ask: Callable[..., Ask]
) -> None:
    install(packages)
    rack = installed()["rack"]
    with RackServer() as server:
        wanted = ask(address=server.address)
        assert cloud_of({"rack": rack}, wanted.pool) is rack
        assert await told(rack, wanted) == (Reason.PROVIDER_STARTING, "rack: 2 machines start")
        state = await rack.reconcile(wanted)
        assert (state.problem, state.remembered.resource) == (None, f"{server.address}/pools/0a1b")
        assert server.groups == {
            "0a1b": {
                "nodes": 2,
                "labels": {"gravswell.dev/pool": "gpus"},
                "owner": {"gravswell-pool": "0a1b", "gravswell-cluster": "9999"},
            }
        }
        more = replace(wanted, bounds=Bounds(9, 9))
        assert await told(rack, more) == (Reason.OUT_OF_STOCK, "rack: 4 machines are all there are")
        answers = [(await rack.release(wanted)).gone for _ in range(3)]
        assert answers == [False, False, True]
        assert not server.groups
    reason, words = await told(rack, wanted)
    assert reason == Reason.PROVIDER_UNREACHABLE
    assert f"{server.address}/pools/0a1b does not answer" in words


async def test_a_provider_that_nobody_installed_is_missing_and_lets_nothing_go(ask: Callable[..., Ask]) -> None:
    absent = cloud_of({"GKE": object(), "shelf": object()}, ask().pool)  # type: ignore[dict-item]  # never called
    reason, words = await told(absent, ask())
    assert reason == Reason.PROVIDER_MISSING
    assert "no provider rack is installed in the operator (installed: shelf)" in words
    assert absent is not None
    assert not (await absent.release(ask())).gone


@pytest.mark.parametrize(
    "code",
    [
        "import a_library_that_is_not_there",
        "raise SystemExit(3)",
        "def Rack(): raise OSError('no key')",
        "class Rack:\n    async def reconcile(self, ask): ...",
        "Rack = None",
        "",
    ],
)
async def test_a_provider_that_cannot_be_loaded_says_why_and_keeps_no_other_from_it(
    packages: Path, ask: Callable[..., Ask], code: str
) -> None:
    install(packages)
    (packages / "rack.py").write_text(code)
    (packages / "rack-1.0.dist-info/entry_points.txt").write_text(
        "[gravswell.providers]\nrack = rack:Rack\nother = gravswell_operator.providers.gke:Gke\n"
    )
    found = installed()
    assert not isinstance(found["other"], Absent)
    reason, words = await told(found["rack"], ask())
    assert reason == Reason.PROVIDER_MISSING
    assert "the provider rack (rack:Rack) cannot be loaded" in words


def test_pools_of_other_types_have_no_provider_of_others(resource: Callable[..., GPUNodePool]) -> None:
    assert cloud_of({"static": object()}, resource("GPUNodePool")) is None  # type: ignore[dict-item]  # never called


async def test_a_name_that_two_packages_have_is_nobodys(packages: Path, ask: Callable[..., Ask]) -> None:
    install(packages)
    second = packages / "shelf-1.0.dist-info"
    second.mkdir()
    (second / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (second / "entry_points.txt").write_text("[gravswell.providers]\nrack = gravswell_operator.providers.gke:Gke\n")
    reason, words = await told(installed()["rack"], ask())
    assert reason == Reason.PROVIDER_MISSING
    assert "two providers are called rack" in words
    assert "rack:Rack" in words
    assert "gke:Gke" in words


@pytest.mark.parametrize("name", ["Karpenter", "GKE", "Static", "a_rack"])
def test_what_no_pool_can_name_is_left_out_and_takes_no_type_over(packages: Path, name: str) -> None:
    install(packages)
    points = packages / "rack-1.0.dist-info/entry_points.txt"
    points.write_text(f"[gravswell.providers]\n{name} = rack:Rack\n")
    assert not installed()
