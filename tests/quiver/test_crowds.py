"""Four processes, two hundred versions of one model, in a folder; ``stores/test_bucket_repository.py`` has buckets."""

from pathlib import Path

import pytest

from .crowds import EACH, LIMIT, WRITERS, crowd


@pytest.mark.timeout(LIMIT + 60)
def test_a_crowd_loses_nothing(root: Path, tmp_path: Path, given: Path) -> None:
    crowd(str(root), given, tmp_path / "logs", each=50)
    assert sorted(path.name for path in root.parent.iterdir()) == ["logs", "my-repo"]
    assert sorted(path.name for path in root.iterdir()) == ["m"]
    assert len(list((root / "m").iterdir())) == WRITERS * (EACH or 50) + 1, "the versions, and config.pbtxt"
