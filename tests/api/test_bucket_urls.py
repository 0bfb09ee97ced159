"""The url of a bucket: what the API takes is what the library opens, as the same place."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gravswell.errors import InvalidInputError
from gravswell.quiver.stores import open_store
from gravswell_operator.api import ModelRepository
from gravswell_operator.api.manifest import parse
from gravswell_operator.desired.source import source

CONNECTION = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:9/a;"


@pytest.fixture(autouse=True)
def emulators(monkeypatch):
    """Named, and never asked: to open a bucket asks nobody."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", CONNECTION)


def repository(url: str) -> ModelRepository:
    document = {
        "apiVersion": "gravswell.dev/v1alpha1",
        "kind": "ModelRepository",
        "metadata": {"name": "models", "namespace": "ns"},
        "spec": {"url": url, "credentialsSecretRef": {"name": "keys"}},
    }
    parsed = parse(document)
    assert isinstance(parsed, ModelRepository)
    return parsed


@pytest.mark.parametrize("scheme", ["gs", "s3", "az"])
@pytest.mark.parametrize(
    ("rest", "opened"),
    [
        ("bucket", "bucket"),
        ("bucket/", "bucket"),
        ("my-bucket.example.com/zoo", "my-bucket.example.com/zoo"),
        ("bucket//zoo/of/models//", "bucket/zoo/of/models"),
        ("bucket/my zoo", "bucket/my zoo"),
        ("bucket/100%25/a?b#c", "bucket/100%25/a?b#c"),
        ("bucket/..a/b..", "bucket/..a/b.."),
        ("bucket/zoo für 模型", "bucket/zoo für 模型"),
    ],
)
def test_what_is_taken_is_opened_by_the_pods_as_it_is_by_the_library(scheme, rest, opened):
    where = source(repository(f"{scheme}://{rest}"))
    assert where.url == f"{scheme}://{rest}"
    assert not where.node_selector
    assert open_store(where.url).url == f"{scheme}://{opened}"


@given(st.text(alphabet="ab./%$@: \\[]\0\n?#é", max_size=12))
@example("b/a//b")
@example("b/./a")
@example("")
def test_nothing_is_taken_that_the_library_does_not_open(rest):
    """Of what it does open, a manifest cannot carry a name of ours with one of these in it."""
    url = f"az://{rest}"
    try:
        open_store(url)
    except InvalidInputError:
        with pytest.raises(InvalidInputError, match=r"spec\.url: "):
            repository(url)
    else:
        bucket = rest.partition("/")[0]
        if not set("$[]\n") & set(rest) and "é" not in bucket and "%" not in bucket and bucket not in (".", ".."):
            repository(url)
