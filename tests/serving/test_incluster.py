"""The pod's own credentials."""

import copy
from pathlib import Path

import pytest

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.serving import incluster


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    for name, content in (("token", "first\n"), ("ca.crt", "certificate"), ("namespace", "models")):
        (tmp_path / name).write_text(content)
    return {"GRAVSWELL_SERVICEACCOUNT": str(tmp_path), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def test_the_folder_that_the_node_names(environ: dict[str, str], tmp_path: Path):
    configuration = incluster.load(environ)
    assert configuration.host == "https://10.0.0.1:443"
    assert configuration.ssl_ca_cert == str(tmp_path / "ca.crt")
    assert configuration.api_key == {"BearerToken": "Bearer first"}
    assert incluster.namespace(environ) == "models"
    assert incluster.namespace(environ | {"POD_NAMESPACE": "other"}) == "other"
    assert incluster.folder({}) == incluster.WELL_KNOWN_FOLDER


def test_an_ipv6_host_and_a_port(environ: dict[str, str]):
    more = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert incluster.load(environ | more).host == "https://[fd00::1]:6443"


async def test_a_rotated_token_is_taken_up_by_every_copy(environ: dict[str, str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(incluster, "RELOAD_SECONDS", 0.0)
    configuration = incluster.load(environ)
    other = copy.deepcopy(configuration)
    fresh = tmp_path / "token.new"
    fresh.write_text("second")
    fresh.replace(tmp_path / "token")
    for one in (configuration, other):
        assert (await one.auth_settings())["BearerToken"]["value"] == "Bearer second"


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_what_is_missing_is_named(environ: dict[str, str], tmp_path: Path, missing: str):
    (tmp_path / missing).unlink()
    with pytest.raises(NotFoundError, match=missing):
        incluster.load(environ)


def test_outside_a_pod(environ: dict[str, str]):
    del environ["KUBERNETES_SERVICE_HOST"]
    with pytest.raises(NotFoundError, match="runs in no pod"):
        incluster.load(environ)


def test_an_empty_token(environ: dict[str, str], tmp_path: Path):
    (tmp_path / "token").write_text("")
    with pytest.raises(InvalidInputError, match="is empty"):
        incluster.load(environ)
