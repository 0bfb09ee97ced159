"""``gravswell place``: what it prints, what it writes, and how it ends."""

from pathlib import Path

from gravswell.quiver.config import parse_config

from .conftest import Run


def test_the_table_of_who_holds_what(run: Run) -> None:
    told = run("place", "--devices", 16, "A=2", "B=4", "C=3", "D=4")
    assert told.code == 0, told.err
    rows = [line.split() for line in told.out.splitlines()]
    expected = [["0-1", "A"], ["2-5", "B"], ["6-8", "C"], ["9-12", "D"], ["13-15", "free"]]
    assert rows == [["devices", "held", "by"], *expected]


def test_as_json_with_what_others_hold(run: Run) -> None:
    options = ("--held", "other=0", "--held", "third=3", "-o", "json")
    assert run("place", "-d", 6, "A=2x1", "B=1,shared", *options).data == {
        "devices": 6,
        "models": [
            {"name": "A", "groups": [[1], [2]], "gpus": [1, 2]},
            {"name": "B", "groups": [[4]], "gpus": [4]},
        ],
        "groups": [
            {"devices": [0], "models": ["other"]},
            {"devices": [1, 2], "models": ["A"]},
            {"devices": [3], "models": ["third"]},
            {"devices": [4], "models": ["B"]},
            {"devices": [5], "models": []},
        ],
        "configs": [],
    }


def test_who_finds_no_room_is_told_who_is_there(run: Run) -> None:
    told = run("place", "-d", 4, "first=3", "second=2")
    assert told.code == 2
    assert told.err.startswith(
        "error: second asks for 2 devices in a row, and 1 of 4 are free. Who holds what: 0-2 first; 3 free."
    )
    assert run("place", "-d", 4, "A=4x2").code == 2
    assert run("place", "-d", 4, "A", "--dry-run").code == 2


def test_devices_are_written_into_the_entries(run: Run, repo: str) -> None:
    file = Path(repo, "m/config.pbtxt")
    before = file.read_text()
    told = run("place", "-d", 4, "m=2", "--held", "x=0-1", "--write", repo, "--dry-run")
    assert "m: config.pbtxt would have instance_group gpus 2, 3" in told.out
    assert file.read_text() == before
    assert run("config", "set", repo, "m", "instance_group[0].count=3").code == 0
    told = run("place", "-d", 4, "m=2", "--held", "x=0-1", "--write", repo)
    assert told.code == 0, told.err
    assert f"gravswell republish {repo} ENTRY" in told.out
    (group,) = parse_config(file.read_text()).instance_group
    assert (group.count, group.kind, list(group.gpus)) == (3, group.KIND_GPU, [2, 3])


def test_nothing_is_written_where_a_model_is_no_entry(run: Run, repo: str) -> None:
    before = Path(repo, "m/config.pbtxt").read_text()
    told = run("place", "-d", 4, "m=2", "n=1", "--write", repo)
    assert (told.code, "has no entry n; its entries: m" in told.err) == (3, True)
    assert Path(repo, "m/config.pbtxt").read_text() == before


def test_nothing_is_written_where_a_model_asks_for_the_cpu(run: Run, repo: str) -> None:
    assert run("config", "set", repo, "m", "instance_group[0].kind=KIND_CPU").code == 0
    before = Path(repo, "m/config.pbtxt").read_text()
    told = run("place", "-d", 4, "m=2", "--write", repo)
    assert (told.code, "its instance_group is KIND_CPU" in told.err) == (2, True)
    assert Path(repo, "m/config.pbtxt").read_text() == before
