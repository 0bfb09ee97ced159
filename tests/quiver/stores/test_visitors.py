"""Looking at buckets of each kind as others fill them: linting, comparing, importing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gravswell import quiver as qv
from gravswell.quiver.comparison import Side, compare_versions
from gravswell.quiver.importing import import_repository
from gravswell.quiver.lint import lint
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import BucketStore, open_store

Affine = Callable[..., Any]


def test_a_bucket_that_somebody_filled(bucket: str, tmp_path: Path, affine: Affine) -> None:
    """As ``gsutil cp`` leaves it: no manifest, no claim."""
    store = open_store(f"{bucket}/theirs")
    assert isinstance(store, BucketStore)
    for number, scale in ((1, 2.0), (4, 3.0)):
        model = tmp_path / f"{number}.onnx"
        model.write_bytes(affine(scale=scale).SerializeToString())
        store.objects.put_file(f"theirs/m/{number}/model.onnx", model, lambda _: None)
    fetched: list[int] = []
    found = lint(store, progress=lambda done, _total: fetched.append(done))
    assert {finding.rule.id for finding in found} == {"config-missing"}
    assert fetched, "the graph that Triton would load is looked at"

    rows = import_repository(f"{bucket}/theirs", f"{bucket}/ours")
    assert [(row.version, row.result) for row in rows] == [(1, "imported"), (4, "imported")]
    fetched.clear()
    assert lint(f"{bucket}/ours", progress=lambda done, _total: fetched.append(done)) == []
    assert not fetched, "what was proved says in its manifest what it is"

    reader = RepositoryReader(f"{bucket}/ours")
    apart = compare_versions(Side(RepositoryReader(store), "m", 1), Side(reader, "m", 4))
    assert [weight.max_abs for weight in apart.weights] == [1.0]
    assert not apart.breaking
    assert qv.ModelRepository.open(f"{bucket}/ours").models["m"].versions == [1, 4]
