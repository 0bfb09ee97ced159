"""The cache: the newest word counts, whoever brings it, and what is gone is found out."""

import pytest

from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import BURIED_SECONDS, Cache, Key


def configmap(name="c", version=1, uid="u", **other):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": uid,
            "resourceVersion": str(version),
            "managedFields": [{"manager": "x"}],
            "labels": {"gravswell.dev/server": "s"},
            "ownerReferences": [{"uid": "other"}, {"uid": "owner", "controller": True}],
        },
        "data": {"k": "v"},
        **other,
    }


KEY = Key(resources.CONFIG_MAP, "ns", "c")


@pytest.fixture
def cache() -> Cache:
    return Cache()


def observe(cache, *args, deleted=False, **kwargs):
    return cache.observe(resources.CONFIG_MAP, configmap(*args, **kwargs), deleted=deleted)


def test_a_record_holds_what_decisions_need(cache):
    change = observe(cache)
    assert (change.old, change.new) == (None, cache.get(KEY))
    record = cache.get(KEY)
    assert (record.uid, record.version, record.owner) == ("u", 1, "owner")
    assert record.view.data == {"k": "v"}
    assert record.body()["data"] == {"k": "v"}
    assert "managedFields" not in record.body()["metadata"]


def test_old_news_is_no_news(cache):
    observe(cache, version=5)
    assert observe(cache, version=5) is None
    assert observe(cache, version=4) is None
    assert observe(cache, version=6).old.version == 5


def test_what_was_compared_stays_so_until_what_is_compared_changes(cache):
    observe(cache, version=5)
    cache.get(KEY).found_equal("digest")
    observe(cache, version=6)
    assert cache.get(KEY).checked == "digest", "only the status can be another one"
    assert cache.get(KEY).body() is None, "what was compared is not kept"
    changed = configmap(version=7)
    cache.observe(resources.CONFIG_MAP, {**changed, "data": {"k": "drift"}})
    assert cache.get(KEY).checked == ""
    assert cache.get(KEY).body()["data"] == {"k": "drift"}
    cache.get(KEY).found_equal("digest")
    observe(cache, version=8, uid="another")
    assert cache.get(KEY).checked == ""
    assert cache.get(KEY).body()["metadata"]["uid"] == "another"


def test_a_deletion(cache):
    observe(cache, version=5)
    assert observe(cache, version=6, uid="another", deleted=True).new is None
    assert cache.get(KEY) is None
    assert observe(cache, version=7, deleted=True) is None


def test_a_late_deletion_of_a_former_object_spares_its_successor(cache):
    observe(cache, version=9, uid="new")
    assert observe(cache, version=8, uid="old", deleted=True) is None
    assert cache.get(KEY).uid == "new"


def test_a_complete_list_finds_what_a_broken_watch_lost(cache):
    for name in ("kept", "lost", "newer"):
        observe(cache, name, version=20 if name == "newer" else 3)
    changes = cache.forget_missing(resources.CONFIG_MAP, {("ns", "kept")}, "10")
    assert [(c.key.name, c.new) for c in changes] == [("lost", None)]
    assert {r.key.name for r in cache.all(resources.CONFIG_MAP)} == {"kept", "newer"}


def test_an_object_that_cannot_be_read_is_kept_with_the_reason(cache):
    body = {"metadata": {"name": "m", "namespace": "ns", "resourceVersion": "1"}, "spec": {"entry": "e"}}
    view = cache.observe(resources.MODEL, body).new.view
    assert view.why.startswith("spec.serverRef: Field required")
    assert view.text("entry") == "e"
    assert view.reference("serverRef") is None


def test_a_status_that_cannot_be_read_does_not_hide_the_object(cache, manifest):
    body = manifest("Model", {"status": {"replicas": [{"pod": "p", "state": "OfALaterRelease"}]}})
    view = cache.observe(resources.MODEL, body).new.view
    assert view.spec.entry == "my-model"
    assert view.status.replicas == ()


def test_a_late_answer_does_not_bring_back_what_is_gone(cache):
    observe(cache, version=5)
    observe(cache, version=9, deleted=True)
    assert observe(cache, version=8) is None
    assert cache.get(KEY) is None


def test_a_late_answer_does_not_bring_back_what_a_list_no_longer_has(cache):
    observe(cache, version=5)
    cache.forget_missing(resources.CONFIG_MAP, set(), "10")
    assert observe(cache, version=8) is None
    assert cache.get(KEY) is None


def test_an_object_that_carries_our_label_again_is_back(cache):
    """A watch by label says deleted when the label goes, though the object lives on."""
    observe(cache, version=5)
    observe(cache, version=9, deleted=True)
    assert observe(cache, version=10).old is None
    assert cache.get(KEY).version == 10


def test_a_successor_is_another_object(cache):
    observe(cache, version=9, deleted=True)
    assert observe(cache, version=8, uid="another") is not None


def test_deletions_are_forgotten_in_time():
    now = [0.0]
    cache = Cache(lambda: now[0])
    for uid in range(100):
        observe(cache, version=9, uid=str(uid), deleted=True)
        now[0] += BURIED_SECONDS / 10
    assert len(cache._graves._versions) <= 12


def test_what_the_api_server_does_not_find_is_dropped_but_not_its_successor(cache):
    record = observe(cache, version=5).new
    assert cache.drop(record).old is record
    assert cache.get(KEY) is None
    observe(cache, version=6, uid="another")
    assert cache.drop(record) is None
    assert cache.get(KEY).uid == "another"
