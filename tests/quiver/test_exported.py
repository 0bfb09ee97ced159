"""Everything that is done to repositories is in reach of ``from gravswell import quiver as qv``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gravswell import quiver as qv

Affine = Callable[..., Any]


def test_what_is_done_to_repositories(entry: qv.Entry, root: Path, tmp_path: Path, affine: Affine) -> None:
    for scale in (1.0, 2.0):
        entry.export_version(affine(scale=scale))
    there = tmp_path / "there"
    qv.Transfer(root, there).run()
    reader = qv.RepositoryReader(there)
    old, new = (qv.Side(reader, "my-model", number) for number in (1, 2))
    assert not qv.compare_versions(old, new).breaking
    assert qv.verify_version(reader, "my-model", 2).samples == 3
    assert qv.lint.lint(there) == []
    (row,) = qv.import_repository(there, tmp_path / "imported", ["my-model"])[:1]
    assert row.result == "skipped"


def test_every_name_is_there() -> None:
    assert all(hasattr(qv, name) for name in qv.__all__)
    assert sorted(qv.__all__) == qv.__all__
