"""What one Triton says of itself, and when it counts as gone."""

import pytest

from gravswell.serving.agent.loadconfig import DIGEST_PARAMETER, KEY_PARAMETER, Loaded
from gravswell.serving.agent.triton import (
    IndexEntry,
    TritonBusyError,
    TritonRefusedError,
    TritonSilentError,
    TritonUnavailableError,
)
from gravswell.serving.agent.view import SILENCES, View


class ScriptedTriton:
    """Says what the test has written down."""

    def __init__(self) -> None:
        self.loaded = {"m": 1}
        self.error: Exception | None = None
        self.unloaded: list[str] = []
        self.unload_error: Exception | None = None

    async def version(self) -> str:
        if self.error is not None:
            raise self.error
        return "2.51.0"

    async def index(self, *, limit: float = 0.0) -> list[IndexEntry]:
        if limit and self.error is not None:
            raise self.error
        gone = IndexEntry("old", 1, "UNAVAILABLE", "unloaded")
        return [gone, *(IndexEntry(name, version, "READY", "") for name, version in self.loaded.items())]

    async def config(self, name: str) -> dict[str, object]:
        if name not in self.loaded:
            raise TritonRefusedError("unknown model")
        version = self.loaded[name]
        parameters = {KEY_PARAMETER: {"string_value": f"key-{version}"}, DIGEST_PARAMETER: {"string_value": "d"}}
        return {"version_policy": {"specific": {"versions": [version]}}, "parameters": parameters}

    async def ask_unload(self, name: str) -> None:
        self.unloaded.append(name)
        if self.unload_error is not None:
            raise self.unload_error


@pytest.fixture
def triton() -> ScriptedTriton:
    return ScriptedTriton()


@pytest.fixture
def view(triton: ScriptedTriton) -> View:
    return View(triton)  # type: ignore[arg-type]


async def test_what_is_loaded_is_read_from_its_config(view: View, triton: ScriptedTriton):
    assert await view.look(at_work=(), proofs=())
    assert (view.version, view.problem) == ("2.51.0", "")
    assert view.serving["m"].loaded == Loaded(1, "d", "key-1")
    view.serving["m"].proven = True
    assert not await view.look(at_work=(), proofs=())
    assert view.serving["m"].proven, "the same load keeps its proof"
    triton.loaded = {"m": 2}
    await view.look(at_work=(), proofs=())
    assert not view.serving["m"].proven, "another load has none"
    assert view.serving["m"].good, "and is trusted for its predecessor's sake"
    triton.loaded = {}
    await view.look(at_work=(), proofs=())
    assert view.serving == {}


async def test_names_at_work_are_left_alone(view: View):
    await view.look(at_work={"m"}, proofs=())
    assert view.serving == {}


async def test_private_models_that_nobody_uses_are_unloaded(view: View, triton: ScriptedTriton):
    triton.loaded = {"gravswell-proof-a": 1, "gravswell-proof-b": 1}
    await view.look(at_work=(), proofs={"gravswell-proof-a"})
    assert triton.unloaded == ["gravswell-proof-b"]
    assert view.serving == {}


@pytest.mark.parametrize("error", [TritonRefusedError("dependants"), TritonBusyError("no room")])
async def test_a_leftover_that_stays_says_nothing_of_what_serves(view: View, triton: ScriptedTriton, error: Exception):
    triton.loaded["gravswell-proof-a"] = 1
    triton.unload_error = error
    await view.look(at_work=(), proofs=())
    assert triton.unloaded == ["gravswell-proof-a"]
    assert view.version == "2.51.0"
    assert set(view.serving) == {"m"}


async def test_a_triton_that_refuses_connections_is_gone_at_once(view: View, triton: ScriptedTriton):
    await view.look(at_work=(), proofs=())
    triton.error = TritonUnavailableError("refused")
    assert await view.look(at_work=(), proofs=())
    assert (view.version, view.problem, view.serving) == ("", "refused", {})
    triton.error = None
    assert await view.look(at_work=(), proofs=())
    assert view.version == "2.51.0"


@pytest.mark.parametrize("error", [TritonSilentError("no answer"), TritonBusyError("no room")])
async def test_a_triton_that_is_silent_once_is_busy(view: View, triton: ScriptedTriton, error: Exception):
    await view.look(at_work=(), proofs=())
    for _ in range(2):  # an answer between makes them no row
        triton.error = error
        for _ in range(SILENCES - 1):
            assert not await view.look(at_work=(), proofs=())
            assert view.serving
        triton.error = None
        await view.look(at_work=(), proofs=())
    triton.error = error
    for _ in range(SILENCES):
        await view.look(at_work=(), proofs=())
    assert (view.version, view.serving) == ("", {})


@pytest.mark.parametrize(
    ("loaded", "error", "expected"),
    [
        ({"m": 1, "other": 1}, None, True),
        ({"other": 1}, None, False),
        ({}, TritonUnavailableError("refused"), False),
        ({}, TritonSilentError("silent"), True),
        ({}, TritonBusyError("no room"), True),
    ],
)
async def test_what_a_triton_had_is_lost_when_it_says_so(view: View, triton: ScriptedTriton, loaded, error, expected):
    triton.loaded, triton.error = loaded, error
    assert await view.still_has(["m", "old"]) is expected
