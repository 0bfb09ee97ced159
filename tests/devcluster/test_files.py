import pytest

from gravswell.errors import InvalidInputError
from gravswell_operator.devcluster.node.files import Projected, project


def shown(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith("..")
    }


def test_files_appear_change_and_go_together(tmp_path):
    folder = tmp_path / "v"
    assert project(folder, {"a": Projected(b"1"), "d/b": Projected(b"2")})
    assert {name: (folder / name).read_text() for name in ("a", "d/b")} == {"a": "1", "d/b": "2"}
    assert project(folder, {"a": Projected(b"3"), "c": Projected(b"4")})
    assert shown(folder) == {"a": "3", "c": "4"}
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith("..")) == ["a", "c"]
    assert len([p for p in folder.iterdir() if p.name.startswith("..") and p.name != "..data"]) == 1


def test_the_same_content_is_not_written_again(tmp_path):
    files = {"a": Projected(b"1", 0o400)}
    assert project(tmp_path / "v", files)
    before = (tmp_path / "v/..data").readlink()
    assert not project(tmp_path / "v", files)
    assert (tmp_path / "v/..data").readlink() == before
    assert (tmp_path / "v/a").stat().st_mode & 0o777 == 0o400


def test_no_files_is_an_empty_folder(tmp_path):
    project(tmp_path / "v", {})
    assert shown(tmp_path / "v") == {}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..data/x"])
def test_a_name_that_leaves_the_volume_is_refused(tmp_path, name):
    with pytest.raises(InvalidInputError, match="cannot be a file of a volume"):
        project(tmp_path / "v", {name: Projected(b"")})
