"""Pipelines in real buckets: published, kept with their members, copied, removed."""

from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError
from gravswell.quiver.reader import RepositoryReader

from ...pipelines.conftest import fill
from ...pipelines.functions import six


def test_a_pipeline_keeps_and_brings_its_members(bucket: str, tmp_path: Path) -> None:
    repo = fill(qv.ModelRepository(f"{bucket}/models"), "double", "triple")
    made: Any = repo.add("six", qv.Platform.PIPELINE).export_version(six)
    assert made == f"{bucket}/models/six/1/.config.pbtxt"
    reader = RepositoryReader(repo.url)
    assert qv.verify_version(reader, "six", 1).samples == 3
    assert [member.model for member in reader.survey()["six"].versions[0].members] == ["double", "triple"]
    with pytest.raises(ConflictError, match="double/1 is a member of six/1"):
        repo.models["double"].remove_version(1)
    qv.Transfer(repo.url, tmp_path / "there", {"six": None}).run()
    qv.Transfer(tmp_path / "there", f"{bucket}/again").run()
    assert qv.verify_version(RepositoryReader(f"{bucket}/again"), "six", 1).samples == 3
    repo.remove("six")
    repo.models["double"].remove_version(1)
