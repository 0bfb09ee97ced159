"""``gravswell lint``, as a user runs it."""

from pathlib import Path

from .conftest import Run


def test_a_clean_repository(run: Run, repo: str) -> None:
    assert "as it stands" in run("lint", repo).out
    assert run("lint", repo, "m", "--target", "24.08", "-o", "json").data == []
    assert run("lint", repo, "nothing").code == 3
    assert "20.11 to" in run("lint", repo, "--target", "19.01").err


def test_findings_and_exit_codes(run: Run, repo: str) -> None:
    Path(repo, "m/README.md").write_text("mine")
    assert run("lint", repo).code == 0
    strict = run("lint", repo, "--strict")
    assert strict.code == 5
    assert "ignored m/README.md" in strict.out
    assert "1 ignored" in strict.err
    Path(repo, "m/7.tmp").mkdir()
    told = run("lint", repo, "-o", "json")
    assert told.code == 5
    worst = told.data[0]
    assert (worst["rule"], worst["severity"], worst["place"]) == ("version-misread", "refused", "m/7.tmp")
    assert worst["wayOut"]


def test_the_age_of_a_published_graph_against_any_tag(run: Run, repo: str) -> None:
    told = run("lint", repo, "--target", "20.11", "-o", "json")
    assert told.code == 5
    assert {finding["rule"] for finding in told.data} == {"opset-too-new", "ir-too-new"}
    assert run("lint", repo, "--target", "27.05").code == 0
    assert "'newest' is no tag" in run("lint", repo, "--target", "newest").err
