"""``gravswell config``, as a user runs it."""

import re
from pathlib import Path

import pytest

from gravswell.quiver.config import parse_config
from gravswell.quiver.fieldpaths import completions

from .conftest import Run


def _file(repo: str) -> Path:
    return Path(repo, "m/config.pbtxt")


def test_show(run: Run, repo: str) -> None:
    assert run("config", "show", repo, "m").out.strip() == _file(repo).read_text().strip()
    assert run("config", "show", repo, "m", "-o", "json").data["platform"] == "onnxruntime_onnx"
    assert run("config", "show", repo, "none").code == 3


def test_a_broken_file_is_told_with_the_ways_out(run: Run, repo: str) -> None:
    whole = _file(repo).read_text()
    _file(repo).write_text(whole + "input [\n")
    told = run("config", "show", repo, "m")
    assert (told.code, "mend that line, or remove the file" in told.err) == (2, True), told.err
    _file(repo).unlink()
    assert run("config", "show", repo, "m").out.strip() == whole.strip(), "what the newest version was published with"
    assert run("add", repo, "new").code == 0
    Path(repo, "new/config.pbtxt").write_text("input [\n")
    told = run("config", "show", repo, "new")
    assert (told.code, "mend that line" in told.err, "remove" in told.err) == (2, True, False), told.err


def test_fields_are_set_all_at_once(run: Run, repo: str) -> None:
    _file(repo).write_text(_file(repo).read_text() + "# ours\nfuture_thing { a: 1 }\n")
    settings = (
        "instance_group[0].kind=KIND_CPU",
        "instance_group[0].count=2",
        "instance_group[0].name=slow ones",
        "parameters[intra_op_thread_count].string_value=2",
        "metric_tags[team]=detector",
        "optimization.cuda.graphs=true",
        "version_policy.specific.versions=1, 2",
        "input[0].dims[1]=4",
    )
    told = run("config", "set", repo, "m", *settings, "--dry-run", "-o", "json").data
    assert (told["changed"], told["written"]) == (True, False)
    assert "+  count: 2" in told["diff"]
    assert "count: 2" not in _file(repo).read_text()
    assert "+  count: 2" in run("config", "set", repo, "m", *settings).out
    written = _file(repo).read_text()
    assert "# ours\nfuture_thing { a: 1 }" in written, "comments and unknown fields survive"
    config = parse_config(written)
    assert (config.instance_group[0].count, config.instance_group[0].name) == (2, "slow ones")
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    assert list(config.version_policy.specific.versions) == [1, 2]
    assert "nothing to change" in run("config", "set", repo, "m", "instance_group[0].count=2").out
    assert run("config", "set", repo, "m", "optimization=", "metric_tags[team]=", "instance_group[0]=").code == 0
    config = parse_config(_file(repo).read_text())
    assert not config.HasField("optimization")
    assert (len(config.metric_tags), len(config.instance_group)) == (0, 0)


@pytest.mark.parametrize(
    ("setting", "fact"),
    [
        ("dynamic_batching.preferred_batch_size=16", "dynamic_batching.preferred_batch_size: preferred_batch_size 16"),
        ("max_batch_size=many", "max_batch_size takes a whole number, not 'many'"),
        ("instance_group[0].kind=KIND_TPU", "takes one of KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL"),
        ("optimization.cuda=yes", "optimization.cuda takes { … } with busy_wait_events, graph_spec"),
        ("optimisation.cuda.graphs=true", "the configuration has no field 'optimisation'; it has backend"),
        ("optimization.cuda.graph=true", "optimization.cuda has no field 'graph'; it has busy_wait_events"),
        ("instance_group.count=2", "instance_group is several: say which, as instance_group[0]"),
        ("instance_group[3].count=2", "there are 0: write an index from 0 to 0"),
        ("max_batch_size[0]=2", "max_batch_size is one"),
        ("max_batch_size.x=2", "max_batch_size is a value, and has no fields"),
        ("name=other", "the name in"),
        ("max_batch_size", "write FIELD=VALUE"),
        ("a b=1", "no path of a field"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(run: Run, repo: str, setting: str, fact: str) -> None:
    before = _file(repo).read_text()
    told = run("config", "set", repo, "m", setting)
    assert (told.code, fact in told.err) == (2, True), told.err
    assert _file(repo).read_text() == before


def test_advice_goes_with_the_change(run: Run, repo: str) -> None:
    told = run("config", "set", repo, "m", "dynamic_batching.preserve_ordering=true")
    assert told.code == 0
    assert "batching-unused" in told.err
    assert run("config", "set", repo, "m", "dynamic_batching=", "-o", "json").data["advice"] == []


def test_an_editor_of_one_s_own(run: Run, repo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    assert run("config", "edit", repo, "m").code == 9
    editor = tmp_path / "editor"
    for line, code, there in (("max_batch_size: -2", 2, False), ('metric_tags { key: "a" value: "b" } # c', 0, True)):
        editor.write_text(f"#!/bin/sh\necho '{line}' >> \"$1\"\n")
        editor.chmod(0o755)
        monkeypatch.setenv("EDITOR", str(editor))
        edited = run("config", "edit", repo, "m")
        assert edited.code == code
        assert (line in _file(repo).read_text()) is there
        if code:
            kept = re.search(r"what you have edited is in (\S+)", edited.err)
            assert kept is not None
            assert Path(kept[1]).read_text().endswith(line + "\n")
            Path(kept[1]).unlink()
    for broken in ("false", "rm", "no 'end"):
        monkeypatch.setenv("EDITOR", broken)
        told = run("config", "edit", repo, "m")
        assert (told.code, "failed, and nothing was changed" in told.err) == (9, True)


def test_paths_of_fields_complete_themselves() -> None:
    assert completions("dyn") == ["dynamic_batching."]
    assert completions("dynamic_batching.pre") == [
        "dynamic_batching.preferred_batch_size=",
        "dynamic_batching.preserve_ordering=",
    ]
    assert completions("parameters[k].") == ["parameters[k].string_value="]
    assert completions("instance_group[0].rate_limiter.r") == ["instance_group[0].rate_limiter.resources["]
    assert completions("name.x") == []
