"""What becomes of a claim, on a server of each kind: it goes with its writer, and never with another's."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError
from gravswell.quiver import stores
from gravswell.quiver.layout import CLAIM
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import BucketStore, Create, Overwrite, Update, burial, claims, open_store
from gravswell.quiver.stores.claims import Claim, upload_of
from gravswell.quiver.stores.objects import Objects
from gravswell.quiver.transfer import Transfer

from .memory_objects import Memory, MemoryObjects

Affine = Callable[..., Any]
KEY = "m/1/.claim.json"


@pytest.fixture
def objects(bucket: str) -> Objects:
    store = open_store(bucket)
    assert isinstance(store, BucketStore)
    return store.objects


def keys(objects: Objects) -> list[str]:
    return [info.key for info in objects.list("")]


def test_an_exact_deletion(objects: Objects) -> None:
    old = objects.put("a", b"old", Create())
    new = objects.put("a", b"new", Update(old))
    with pytest.raises(ConflictError):
        objects.delete_exact("a", old)
    assert objects.get("a").data == b"new"
    objects.delete_exact("a", new)
    assert keys(objects) == []
    with pytest.raises(ConflictError):
        objects.delete_exact("a", new)


def test_a_claim_goes_with_its_writer(objects: Objects) -> None:
    with Claim(objects, KEY) as claim:
        claim.confirm()
        claim.drop()
    assert keys(objects) == []


def test_a_claim_that_was_taken_over_is_its_successor_s(objects: Objects) -> None:
    """The writer slept; what it drops when it wakes up is not the claim of who went on."""
    with Claim(objects, KEY) as claim:
        objects.put(KEY, b"the successor's", Overwrite())
        claim.drop()
        assert objects.get(KEY).data == b"the successor's"
        with pytest.raises(ConflictError, match="was taken over"):
            claim.confirm()
    objects.delete([KEY])


def test_a_renewal_whose_answer_was_lost_is_still_our_own(objects: Objects) -> None:
    with Claim(objects, KEY) as claim:
        objects.put(KEY, claim._content(), Update(claim._etag))  # it arrived, and nobody was told
        claim.confirm()
        objects.put(KEY, claim._content(), Update(claim._etag))
        claim.drop()
    assert keys(objects) == []


def test_who_dies_in_the_middle_of_a_deletion_in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on S3: what is left is nobody's upload, and is cleared away as a dead writer's claim is."""
    objects = MemoryObjects(Memory(hashed=True))
    monkeypatch.setattr(objects, "_delete_once", lambda _: None)
    with Claim(objects, KEY) as claim:
        claim.drop()
    assert keys(objects) == [KEY]
    assert upload_of(objects, KEY, 1) is None
    with pytest.raises(ConflictError), Claim(objects, KEY, copy_of="digest"):
        pass


def test_a_copy_that_nobody_goes_on_with_frees_its_number(
    tmp_path: Path, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a week; until then it is the next copy's to go on with. An export clears it away, and a copy may come."""
    memory = Memory()
    monkeypatch.setattr(stores, "_objects", lambda *_: MemoryObjects(memory))
    monkeypatch.setattr(claims, "EXPIRY", timedelta(0))
    monkeypatch.setattr(burial, "EXPIRY", timedelta(0))
    entry = qv.ModelRepository(tmp_path / "local").add("m")
    for scale in (1.0, 2.0, 3.0):
        entry.export_version(affine(scale=scale))
    url = "gs://memory/r"
    Transfer(tmp_path / "local", url, {"m": [1]}).run()
    digest = entry.version(2).digest or ""
    with Claim(MemoryObjects(memory), f"r/m/2/{CLAIM}", copy_of=digest):
        pass  # it died
    open_store(url).write("m/2/model.onnx", b"half", Create())

    there = qv.ModelRepository.open(url).models["m"]
    there.export_version(affine(), version=4)
    assert [f.path for f in open_store(url).walk("m/2")] == [CLAIM, "model.onnx"]
    monkeypatch.setattr(burial, "COPIES_STAY", timedelta(0))
    there.export_version(affine(), version=5)
    assert not [key for key in memory.held if "/m/2/" in key]
    Transfer(tmp_path / "local", url, {"m": [2]}).run()
    assert RepositoryReader(url).version("m", 2).digest == digest


def test_a_copy_beside_one_that_ends() -> None:
    """The other is done while we watch whether it lives: that is a conflict, and no object that is missing."""
    objects = MemoryObjects(Memory())
    with Claim(objects, KEY, copy_of="digest") as claim:
        watching = Claim(objects, KEY, copy_of="digest")
        watching._ended.wait = lambda *_: claim.drop()  # type: ignore[method-assign,assignment,func-returns-value]
        with pytest.raises(ConflictError, match="ended this moment"), watching:
            pass
