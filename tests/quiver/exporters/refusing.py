"""An export that is refused leaves the repository as it was."""

from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv


def nothing_was_published(entry: qv.Entry, root: Path) -> None:
    assert entry.versions == []
    assert (root / "my-model/config.pbtxt").read_text() == 'name: "my-model"\nplatform: "onnxruntime_onnx"\n'
    assert [p.name for p in (root / "my-model").iterdir()] == ["config.pbtxt"]
    assert list(root.parent.iterdir()) == [root]


def check_refusal(
    entry: qv.Entry, root: Path, model: Any, arguments: dict[str, Any], error: type[Exception], fact: str
) -> None:
    """Export ``model`` to an entry that is new, and see the error, and that nothing came of it."""
    before = str(entry.config)
    with pytest.raises(error, match=fact):
        entry.export_version(model, **arguments)
    assert str(entry.config) == before
    nothing_was_published(entry, root)
