"""The node cache: what it holds comes back whole or not at all, and it never grows beyond its bounds."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from gravswell.quiver.manifest import MANIFEST
from gravswell.serving.agent import members, nodecache
from gravswell.serving.agent.failures import ModelFailure, SupersededError
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.nodecache import NodeCache
from gravswell.serving.agent.supply import fetch
from gravswell.serving.contracts import DesiredModel, Reason

from ...quiver.forking import in_a_process
from .running import MakeAgent, until
from .versions import flip_a_bit, publish, publish_member, publish_pipeline


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


def nothing() -> None:
    """Whoever copies goes on."""


def kept(cache: NodeCache, repository: Path, number: int) -> DesiredModel:
    """A version that is published and in the cache."""
    digest = publish(repository, "m", number, float(number))
    model = DesiredModel(name="m", version=number, digest=digest)
    assert cache.keep(model, repository / f"m/{number}", nothing)
    return model


def fresh(tmp_path: Path) -> ModelFolder:
    """The folder of a new pod."""
    folder = ModelFolder(tmp_path / f"pod-{time.monotonic_ns()}")
    folder.prepare()
    return folder


def age(root: Path, model: DesiredModel, seconds: float) -> None:
    """Let nobody have wanted the version for so long."""
    then = time.time() - seconds
    os.utime(root / "versions" / str(model.digest), (then, then))


def inside(root: Path, folder: str) -> set[str]:
    """What lies in a folder of the cache."""
    return {path.name for path in (root / folder).glob("*")}


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes a second to write a file would pass for a volume that hangs."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def answer(pipe: Path, content: bytes = b"") -> None:
    """Let go who waits at a pipe, if anybody does."""
    end = os.open(pipe, os.O_RDWR)  # which waits for nobody
    os.write(end, content)
    os.close(end)


def size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_what_is_kept_needs_no_repository(root: Path, repository: Path, tmp_path: Path):
    model = kept(NodeCache(root), repository, 1)
    files = {path.name: path.read_bytes() for path in (repository / "m/1").iterdir()}
    shutil.rmtree(repository)
    folder = fresh(tmp_path)
    fetch(str(repository), model, folder, wanted=lambda: True, cache=NodeCache(root))
    assert {path.name: path.read_bytes() for path in folder.place(model).iterdir()} == files
    assert inside(root, "incoming") == set()
    other = DesiredModel(name="m", version=2, digest="2" * 64)
    with pytest.raises(ModelFailure) as caught:
        fetch(str(repository), other, folder, wanted=lambda: True, cache=NodeCache(root))
    assert caught.value.reason is Reason.REPOSITORY_NOT_FOUND


@pytest.mark.parametrize("name", ["model.onnx", ".golden.npz", MANIFEST])
def test_what_is_damaged_comes_from_the_repository_and_goes(root: Path, repository: Path, tmp_path: Path, name: str):
    cache = NodeCache(root)
    model = kept(cache, repository, 1)
    flip_a_bit(root / "versions" / str(model.digest) / name)
    folder = fresh(tmp_path)
    fetch(str(repository), model, folder, wanted=lambda: True, cache=cache)
    assert folder.find(model) is not None
    assert cache.find(model) is None
    assert not (root / "versions" / str(model.digest)).exists()
    assert cache.keep(model, folder.place(model), nothing), "a sound copy takes its place"
    assert cache.find(model) is not None


def test_a_damaged_copy_is_never_kept(root: Path, repository: Path):
    digest = publish(repository, "m", 1, 1.0)
    flip_a_bit(repository / "m/1/model.onnx")
    model = DesiredModel(name="m", version=1, digest=digest)
    assert not NodeCache(root).keep(model, repository / "m/1", nothing)
    assert inside(root, "versions") == inside(root, "incoming") == set()


@pytest.mark.parametrize("damage", ["its manifest is gone", "it is a file"])
def test_a_version_without_its_manifest_is_brought_anew(root: Path, repository: Path, damage: str):
    cache = NodeCache(root)
    model = kept(cache, repository, 1)
    held = root / "versions" / str(model.digest)
    if damage == "it is a file":
        shutil.rmtree(held)
        held.write_text("")
    else:
        (held / MANIFEST).unlink()
    assert cache.find(model) is None
    assert cache.keep(model, repository / "m/1", nothing)
    assert cache.find(model) is not None
    assert inside(root, "incoming") == set()


def test_another_pod_that_is_faster_is_no_failure(root: Path, repository: Path, monkeypatch: pytest.MonkeyPatch):
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    cache, copy = NodeCache(root), nodecache.copy_version

    def overtaken(*given: object, **how: object) -> None:
        monkeypatch.setattr(nodecache, "copy_version", copy)
        shutil.copytree(repository / "m/1", root / "versions" / str(model.digest))
        copy(*given, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(nodecache, "copy_version", overtaken)
    assert cache.keep(model, repository / "m/1", nothing)
    assert inside(root, "incoming") == set()


def test_another_version_that_took_the_number_is_not_kept_for_it(root: Path, repository: Path):
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    shutil.rmtree(repository / "m/1")
    publish(repository, "m", 1, 2.0)
    assert not NodeCache(root).keep(model, repository / "m/1", nothing)
    assert inside(root, "versions") == inside(root, "incoming") == set()


def test_nothing_is_cleared_outside_of_the_volume(root: Path, repository: Path, tmp_path: Path):
    others = tmp_path / "others"
    (others / "folder").mkdir(parents=True)
    then = time.time() - nodecache.ABANDONED_SECONDS - 1
    os.utime(others / "folder", (then, then))
    (root / "incoming").symlink_to(others)
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    assert not NodeCache(root).keep(model, repository / "m/1", nothing)
    assert (others / "folder").is_dir()


def test_nothing_goes_for_a_version_that_is_larger_than_the_cache_may_be(root: Path, repository: Path):
    one = kept(NodeCache(root), repository, 1)
    age(root, one, nodecache.WANTED_SECONDS + 100)
    cache = NodeCache(root, limit=100)
    two = DesiredModel(name="m", version=2, digest=publish(repository, "m", 2, 2.0))
    assert not cache.keep(two, repository / "m/2", nothing)
    assert cache.find(one) is not None


def test_what_nobody_wants_makes_room_and_what_is_wanted_stays(root: Path, repository: Path):
    one = kept(NodeCache(root), repository, 1)
    limit = 2 * size(root) + 200
    cache = NodeCache(root, limit=limit)
    two = kept(cache, repository, 2)
    age(root, one, nodecache.WANTED_SECONDS + 100)
    age(root, two, nodecache.WANTED_SECONDS + 200)
    cache.want([str(two.digest), "0" * 64])
    three = kept(cache, repository, 3)
    assert [cache.find(model) is not None for model in (one, two, three)] == [False, True, True]
    assert size(root) <= limit
    four = DesiredModel(name="m", version=4, digest=publish(repository, "m", 4, 4.0))
    assert not cache.keep(four, repository / "m/4", nothing), "it is full of what is wanted"
    assert [cache.find(model) is not None for model in (two, three, four)] == [True, True, False]


def test_a_volume_that_fails_costs_nothing_but_the_copy(root: Path, repository: Path, tmp_path: Path, caplog):
    root.rmdir()
    root.write_text("no folder")
    cache = NodeCache(root)
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    folder = fresh(tmp_path)
    fetch(str(repository), model, folder, wanted=lambda: True, cache=cache)
    cache.want([str(model.digest)])
    assert not cache.keep(model, folder.place(model), nothing)
    assert "this pod does without it" in caplog.text


def test_many_pods_keep_and_take_the_same_at_once(root: Path, repository: Path, tmp_path: Path):
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    failures: list[BaseException] = []

    def pod(number: int) -> None:
        cache, folder = NodeCache(root), ModelFolder(tmp_path / f"pod-{number}")
        try:
            folder.prepare()
            for _ in range(10):
                fetch(str(repository), model, folder, wanted=lambda: True, cache=cache)
                found = folder.find(model)
                assert found is not None
                cache.keep(model, found, nothing)
                folder.drop_stage(str(model.digest))
        except BaseException as failure:  # noqa: BLE001  told by the test
            failures.append(failure)

    pods = [threading.Thread(target=pod, args=(number,)) for number in range(6)]
    for thread in pods:
        thread.start()
    for thread in pods:
        thread.join()
    assert failures == []
    assert NodeCache(root).find(model) is not None
    assert inside(root, "incoming") == set()


def test_what_a_dead_pod_left_is_cleared_and_one_at_work_is_left_alone(root: Path, repository: Path):
    cache = NodeCache(root)
    one = kept(cache, repository, 1)
    digest = publish(repository, "m", 2, 2.0)
    model = DesiredModel(name="m", version=2, digest=digest)
    other = root / "incoming" / f"{digest}-other"
    other.mkdir()
    assert not cache.keep(model, repository / "m/2", nothing), "another pod is at it"
    then = time.time() - nodecache.ABANDONED_SECONDS - 1
    os.utime(other, (then, then))
    assert cache.keep(model, repository / "m/2", nothing)
    assert inside(root, "incoming") == set()
    assert cache.find(one) is not None


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("name", [MANIFEST, "model.onnx"])
def test_a_volume_that_hangs_is_done_without_until_it_answers(
    root: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """A pipe without a writer holds whoever opens it, as a network file system does whose server is away."""
    cache = NodeCache(root)
    model, other = kept(cache, repository, 1), kept(cache, repository, 2)
    pipe = root / "versions" / str(model.digest) / name
    content = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    monkeypatch.setattr(nodecache, "HANGS_SECONDS", 1.0)
    folder = fresh(tmp_path)
    fetch(str(repository), model, folder, wanted=lambda: True, cache=cache)
    assert (folder.place(model) / "model.onnx").read_bytes() == (repository / "m/1/model.onnx").read_bytes()
    monkeypatch.setattr(nodecache, "HANGS_SECONDS", 3600.0)
    assert cache.find(other) is None, "the volume is left alone while it hangs"
    answer(pipe, content)  # its server is back
    deadline = time.monotonic() + 60
    while cache.find(other) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cache.find(other) is not None


@pytest.mark.usefixtures("quick_disk")
def test_a_copy_to_a_volume_that_hangs_is_given_up_and_so_is_what_is_wanted_there(
    root: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    """No file can be made to hold who writes its time, so that call is stood in for; the copy waits at a real pipe."""
    cache = NodeCache(root)
    model = kept(cache, repository, 1)
    other = DesiredModel(name="m", version=2, digest=publish(repository, "m", 2, 2.0))
    source = repository / "m/2/model.onnx"
    content = source.read_bytes()
    source.unlink()
    os.mkfifo(source)
    monkeypatch.setattr(nodecache, "ABANDONED_SECONDS", 1.0)
    assert not cache.keep(other, source.parent, nothing)
    answer(source, content)
    monkeypatch.undo()
    deadline = time.monotonic() + 60
    while cache.find(model) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cache.find(model) is not None, "it is used again"
    assert cache.find(other) is None, "what was given up does not come into sight"

    back = threading.Event()
    monkeypatch.setattr(nodecache, "HANGS_SECONDS", 1.0)
    monkeypatch.setattr(os, "utime", lambda *_: back.wait(60))
    cache.want([str(model.digest)])
    assert cache.find(model) is None
    back.set()


@pytest.mark.usefixtures("quick_disk")
def test_a_hanging_volume_holds_nobody_who_is_not_wanted_any_more(root: Path, repository: Path, tmp_path: Path):
    cache = NodeCache(root)
    model = kept(cache, repository, 1)
    pipe = root / "versions" / str(model.digest) / "model.onnx"
    pipe.unlink()
    os.mkfifo(pipe)
    began = time.monotonic()
    with pytest.raises(SupersededError):
        fetch(str(repository), model, fresh(tmp_path), wanted=lambda: time.monotonic() < began + 0.2, cache=cache)
    answer(pipe)


def test_a_pod_that_dies_while_it_looks_at_the_time_leaves_nothing_for_ever(root: Path, repository: Path):
    cache = NodeCache(root)
    kept(cache, repository, 1)
    model = DesiredModel(name="m", version=2, digest=publish(repository, "m", 2, 2.0))

    def pod() -> None:
        nodecache.os.fstat = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        cache.keep(model, repository / "m/2", nothing)

    assert in_a_process(pod) == -signal.SIGKILL
    left = list(root.rglob(".clock-*"))
    assert left
    then = time.time() - nodecache.ABANDONED_SECONDS - 1
    for path in left:
        os.utime(path, (then, then))
    assert cache.keep(model, repository / "m/2", nothing)
    assert list(root.rglob(".clock-*")) == []


def test_a_copy_ends_with_its_agent(root: Path, repository: Path):
    def ends() -> None:
        raise SupersededError("the agent stops")

    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    with pytest.raises(SupersededError):
        NodeCache(root).keep(model, repository / "m/1", ends)
    assert inside(root, "versions") == inside(root, "incoming") == set()


async def test_a_new_pod_serves_a_pipeline_from_the_cache_while_the_repository_is_away(
    agent: MakeAgent, repository: Path, models: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(members, "RELEASE_SECONDS", 0.5)
    first, second = publish_member(repository, "first", 1, 2.0), publish_member(repository, "second", 1, 3.0)
    digest = publish_pipeline(repository, "chain", 1, 6.0, first, second)
    whole = {digest, first.digest, second.digest}
    async with agent(cache=root) as running:
        running.desire(DesiredModel(name="chain", version=1, digest=digest))
        await running.serves("chain", 1)
        await until(lambda: inside(root, "versions") == whole, "all of it is kept")
        running.desire()
        await until(lambda: [path.name for path in models.iterdir()] == [".gravswell"], "the pod is as new")
        repository.rename(repository.with_name("away"))  # noqa: ASYNC240  a rename waits for nothing
        running.desire(DesiredModel(name="chain", version=1, digest=digest))
        await running.serves("chain", 1)
