"""The command that adds an extra, by where gravswell was installed from."""

import json
from pathlib import Path
from typing import Any

import pytest

from gravswell.extras import install


def _installed(folder: Path, origin: dict[str, Any] | None) -> None:
    info = folder / "gravswell-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gravswell\nVersion: 0.0\n")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'gravswell[torch]'"),
        ({"url": "file://{clone}", "dir_info": {"editable": True}}, "pip install -e '{clone}[torch]'"),
        ({"url": "file://{clone}", "dir_info": {}}, "pip install '{clone}[torch]'"),
        ({"url": "file:///gone/gravswell.whl", "archive_info": {}}, "pip install 'gravswell[torch]'"),
        (
            {"url": "https://example.org/gravswell.whl", "archive_info": {}},
            "pip install 'gravswell[torch] @ https://example.org/gravswell.whl'",
        ),
        (
            {"url": "https://example.org/g.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'gravswell[torch] @ git+https://example.org/g.git@abc'",
        ),
    ],
)
def test_an_extra_comes_from_where_the_installation_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None, command: str
) -> None:
    clone = tmp_path / "my clone"
    clone.mkdir()
    if origin is not None:
        origin = origin | {"url": origin["url"].replace("{clone}", clone.as_uri().removeprefix("file://"))}
    _installed(tmp_path, origin)
    monkeypatch.syspath_prepend(tmp_path)
    assert install("torch") == command.replace("{clone}", str(clone))
