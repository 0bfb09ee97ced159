"""What the benchmark does in a repository of the user's: the whole of it, with a tiny model, in this process."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gravswell import quiver as qv
from gravswell.errors import UnavailableError
from gravswell.quiver import stores
from gravswell.quiver.stores import Create, open_store

from ..quiver.stores.memory_objects import Memory, MemoryObjects


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """What every bucket holds."""
    memory = Memory()
    monkeypatch.setattr(stores, "_objects", lambda *_: MemoryObjects(memory))
    return memory


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path, memory: Memory) -> str:
    """The user's own repository, with one entry."""
    url = str(tmp_path / "models") if request.param == "folder" else "gs://memory/models"
    qv.ModelRepository(url).add("mine")
    return url


@pytest.fixture
def benchmark(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, url: str) -> ModuleType:
    """The script as a module, called with ``--to URL``; its steps run here."""
    monkeypatch.setattr(benchmark, "WIDTH", 8)

    def peak(step: str, *arguments: str) -> object:
        benchmark.STEPS[step](*arguments)
        return benchmark.Peak(8.0 * len(arguments), 4.0 * len(arguments))

    monkeypatch.setattr(benchmark, "peak", peak)
    monkeypatch.setattr(sys, "argv", ["publish_memory.py", "--gigabytes", "1e-6", "--to", url])
    return benchmark


def everything(url: str) -> tuple[stores.Children, set[str]]:
    """Folders too, also empty ones."""
    store = open_store(url)
    return store.children(), {file.path for file in store.walk("")}


def test_it_leaves_what_was_there(benchmark: ModuleType, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(url)
    for _ in range(2):
        benchmark.main()
        said = capsys.readouterr().out
        assert [f"{url}/gravswell-benchmark {step}: " in said for step in ("export", "publish", "fetch")] == [True] * 3
        assert everything(url) == before


def test_it_clears_up_when_it_fails(benchmark: ModuleType, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: str) -> None:
        raise UnavailableError("the network is gone")

    before = everything(url)
    monkeypatch.setitem(benchmark.STEPS, "fetch", failing)
    with pytest.raises(UnavailableError):
        benchmark.main()
    assert everything(url) == before


def test_it_takes_no_place_that_is_not_empty(benchmark: ModuleType, url: str) -> None:
    qv.ModelRepository(f"{url}/gravswell-benchmark")
    open_store(f"{url}/gravswell-benchmark").write("notes.txt", b"theirs", Create())
    before = everything(url)
    with pytest.raises(SystemExit, match=r"gravswell-benchmark holds notes.txt: "):
        benchmark.main()
    assert everything(url) == before


def test_what_misses_the_bar_ends_it_with_the_figure(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "BAR", -10e6)
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out.count(": missed\n") == 4, "of the runtime alone too, which is the limit and none of ours"
    missed = [line.partition(", ")[0].rpartition(" ")[2] for line in printed.err.splitlines()]
    assert missed == ["export", "publish", "fetch"]
    assert printed.err.count(" MB, and the bar is at most -10 MB") == 3


@pytest.mark.parametrize(("bar", "verdict"), [(500e6, "published"), (20e6, "killed")])
def test_an_export_within_the_limit_of_a_control_group(
    benchmark: ModuleType,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    bar: float,
    verdict: str,
) -> None:
    """In processes of their own, on the kernel's control groups; a bucket in this process's memory is not for them."""
    if url.startswith("gs://"):
        return
    before = everything(url)
    monkeypatch.setattr(benchmark, "BAR", bar)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--within"])
    if verdict == "published":
        benchmark.main()
    else:
        with pytest.raises(SystemExit) as ended:
            benchmark.main()
        assert ended.value.code == 1
    printed = capfd.readouterr()
    within = rf"export: {verdict} within 0 MB of the model, 0 MB of the imports and {bar / 1e6:.0f} MB, after \d+ s"
    assert re.search(within, printed.out)
    assert ("missed: " in printed.err) == (verdict == "killed")
    assert everything(url) == before
