"""The README's Python as a reader runs it: one piece after the other, in an empty folder."""

import re
from pathlib import Path

import pytest

from gravswell.utils import print_tree

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_the_python_pieces_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *others = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    [tree] = re.findall(r"^```\n(my-repo/\n.*?)^```$", README, re.M | re.S)
    names: dict[str, object] = {}
    exec(first, names)
    print_tree("my-repo")
    assert capsys.readouterr().out == tree
    for piece in others:
        exec(piece, names)
    assert capsys.readouterr().out == "(1000, 10)\n"
