import signal
import threading
import time

import pytest

from gravswell.errors import InvalidInputError, UnsupportedError
from gravswell_operator.devcluster import BackgroundBuild, Progress, ensure_binaries
from gravswell_operator.devcluster import binaries as module


@pytest.fixture
def assets(tmp_path, monkeypatch):
    folder = tmp_path / "assets"
    folder.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (folder / name).write_text("")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
    return folder


def test_kubebuilder_assets_win(without_go, assets):
    found = ensure_binaries(names=["etcd", "kubectl"])
    assert found["etcd"] == assets / "etcd"
    assert found["kubectl"] == assets / "kubectl"


def test_what_the_assets_lack_is_built_so_go_is_needed(without_go, assets):
    with pytest.raises(UnsupportedError, match="no `go` here"):
        ensure_binaries(names=["etcd", "kube-scheduler"])


def test_an_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(InvalidInputError, match=r"'kubeadm'.*kube-apiserver"):
        ensure_binaries(names=["kubeadm"])


def test_what_was_not_asked_for_is_not_given(assets):
    with pytest.raises(InvalidInputError, match="helm was not asked for"):
        ensure_binaries(names=["etcd"])["helm"]


def test_a_kubectl_of_another_age_on_the_path_is_not_taken(without_go, tmp_path):
    other = tmp_path / "kubectl"
    other.write_text('#!/bin/sh\necho \'{"clientVersion": {"minor": "20"}}\'\n')
    other.chmod(0o755)
    assert module.find("kubectl") is None
    minor = int(module.KUBERNETES.version.split(".")[1]) - 1
    other.write_text(f'#!/bin/sh\necho \'{{"clientVersion": {{"minor": "{minor}+"}}}}\'\n')
    assert module.find("kubectl") == other


def test_a_background_build_reports_and_delivers(publish, monkeypatch):
    program = publish("hello")
    monkeypatch.setattr(module, "PROGRAMS", {"hello": program})
    seen: list[Progress] = []
    with BackgroundBuild(names=["hello"], progress=seen.append) as building:
        found = building.wait(120)
    assert found["hello"] == program.path
    assert building.done
    assert building.latest == seen[-1]
    assert (seen[-1].action, seen[-1].index, seen[-1].total) == ("ready", 1, 1)


def test_a_background_builds_error_is_raised_where_it_is_awaited(without_go):
    with BackgroundBuild(names=["etcd"]) as building, pytest.raises(UnsupportedError, match="no `go` here"):
        building.wait(60)


def test_leaving_early_stops_the_build(publish, monkeypatch):
    program = publish("hello")
    monkeypatch.setattr(module, "PROGRAMS", {"hello": program})
    with BackgroundBuild(names=["hello"]) as building:
        pass
    assert building.done


def test_who_is_interrupted_in_the_wait_for_a_build_still_waits_for_its_end(monkeypatch):
    """A join that is interrupted has Python believe that the thread is gone, with compilers still running."""
    entered, gone = threading.Event(), threading.Event()

    def compiles(*, cancelled, **_):
        entered.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        cancelled.wait()
        time.sleep(0.5)  # what a compiler takes to end
        gone.set()

    monkeypatch.setattr(module, "ensure_binaries", compiles)

    def asks():
        with BackgroundBuild() as building:
            entered.set()
            building.done_within(60)

    with pytest.raises(KeyboardInterrupt):
        asks()
    assert gone.is_set()


def test_a_build_that_fails_as_nobody_expected_ends_too(monkeypatch):
    monkeypatch.setattr(module, "ensure_binaries", lambda **_: {}["a defect"])
    with BackgroundBuild() as building:
        assert building.done_within(60)
        with pytest.raises(KeyError, match="a defect"):
            building.wait()
