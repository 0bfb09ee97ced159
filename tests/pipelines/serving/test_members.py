"""Members on the real Triton: pinned, shared, and callable from outside only where a pipeline says so."""

import json
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from gravswell import quiver as qv
from gravswell.names import MEMBER_PREFIX
from gravswell.serving.members import member_name
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.triton.flags import key_headers

from ...serving.triton.conftest import ROWS, ask


def test_members_are_those_that_were_pinned_whatever_their_entries_are_now(root: Path, server: EmbeddedTriton) -> None:
    assert qv.ModelRepository(root).models["double"].versions == [1, 2]
    np.testing.assert_array_equal(ask(server.grpc_address, "four", x=ROWS)["z"], ROWS * 4)
    # `double` is served to clients too, for another pipeline opens it: in the version that is newest, and the pinned.
    np.testing.assert_array_equal(ask(server.grpc_address, "double", x=ROWS)["y"], ROWS * -2)
    np.testing.assert_array_equal(ask(server.grpc_address, "eight", x=ROWS)["z"], ROWS * 6)
    assert {model.name: model.versions for model in server.served()}["double"] == [1, 2]


def test_pipelines_share_a_member_of_the_same_version(server: EmbeddedTriton) -> None:
    assert sorted(server.members.values()) == ["batched/1", "double/1", "pick/1"]
    loaded = [status.name for status in server.control.index() if status.name.startswith(MEMBER_PREFIX)]
    assert sorted(loaded) == sorted(server.members)


def test_clients_are_not_told_of_members(server: EmbeddedTriton) -> None:
    names = {model.name for model in server.served()}
    assert names == {"double", "eight", "four", "looking", "power", "rows", "telling", "triple"}


def test_a_private_member_cannot_be_called(root: Path) -> None:
    """By its entry's name, by a name made of what the repository tells, or by one that the server was asked for."""
    digest = qv.ModelRepository(root).models["double"].versions[0].digest
    assert digest is not None
    with EmbeddedTriton(root, models=["four"], key="secret") as server:
        np.testing.assert_array_equal(ask(server.grpc_address, "four", x=ROWS)["z"], ROWS * 4)
        for guess in ("double", member_name("double", digest), member_name("double", digest, "secret")):
            with pytest.raises(InferenceServerException, match="unknown model"):
                ask(server.grpc_address, guess, x=ROWS)
        request = urllib.request.Request(f"http://{server.http_address}/v2/repository/index", b"{}", method="POST")
        with pytest.raises(HTTPError):
            urllib.request.urlopen(request)
        request.headers |= key_headers("secret")[0]
        with urllib.request.urlopen(request) as answer:
            assert len(json.load(answer)) == 2, "whoever has the key may look"


def test_what_is_named_is_served_by_itself_too(root: Path) -> None:
    with EmbeddedTriton(root, models=["four", "double"]) as server:
        assert [(model.name, model.versions) for model in server.served()] == [("double", [2]), ("four", [1])]
        np.testing.assert_array_equal(ask(server.grpc_address, "double", x=ROWS)["y"], ROWS * -2)


def test_in_explicit_control_members_come_and_go_with_their_pipelines(root: Path) -> None:
    with EmbeddedTriton(root, model_control="explicit") as server:
        server.load("four")
        server.load("power")
        np.testing.assert_array_equal(ask(server.grpc_address, "power", x=ROWS)["z"], ROWS * 16)
        assert [model.name for model in server.served()] == ["four", "power"]
        (member,) = server.members
        server.unload("four")
        np.testing.assert_array_equal(ask(server.grpc_address, "power", x=ROWS)["z"], ROWS * 16)
        server.unload("power")
        states = {status.name: status.state for status in server.control.index()}
        assert states[member] != "READY"
