"""Members on the real Triton: pinned, shared, and callable from outside only where a pipeline says so."""

import json
import shutil
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from gravswell import quiver as qv
from gravswell.cli import serve
from gravswell.cli.output import Output
from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.names import MEMBER_PREFIX
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving import Client
from gravswell.serving.members import member_name
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.triton.flags import key_headers
from gravswell.serving.verification import verify_served

from ...serving.triton.conftest import ROWS, ask, graph, scale
from . import functions
from .conftest import RANKS


def test_members_are_those_that_were_pinned_whatever_their_entries_are_now(root: Path, server: EmbeddedTriton) -> None:
    assert qv.ModelRepository(root).models["double"].versions == [1, 2]
    np.testing.assert_array_equal(ask(server.grpc_address, "four", x=ROWS)["z"], ROWS * 4)
    # `double` is served to clients too, for another pipeline opens it: in the version that is newest, and the pinned.
    np.testing.assert_array_equal(ask(server.grpc_address, "double", x=ROWS)["y"], ROWS * -2)
    np.testing.assert_array_equal(ask(server.grpc_address, "eight", x=ROWS)["z"], ROWS * 6)
    assert {model.name: model.versions for model in server.served()}["double"] == [1, 2]


def test_pipelines_share_a_member_of_the_same_version(server: EmbeddedTriton) -> None:
    ranks = [f"rank{k}/1" for k in range(RANKS)]
    assert sorted(server.members.values()) == ["batched/1", "double/1", "pick/1", *ranks, "triple/1", "waiting/1"]
    loaded = [status.name for status in server.control.index() if status.name.startswith(MEMBER_PREFIX)]
    assert sorted(loaded) == sorted(server.members)


def test_clients_are_not_told_of_members(server: EmbeddedTriton) -> None:
    pipelines = {"eight", "four", "looking", "packaged", "pinned", "power", "predict", "rows", "telling", "together"}
    assert {model.name for model in server.served()} == pipelines | {"double", "triple", "unrolled"}


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


def test_where_a_members_name_shows_is_closed_by_tritons_own_flags(root: Path) -> None:
    """What the page on serving pipelines says of a private member's name."""
    apis = "statistics,model-config"
    closing = [f"--http-restricted-api={apis}:X-Closed=secret", f"--grpc-restricted-protocol={apis}:closed=secret"]
    for flags in ([], closing):
        with EmbeddedTriton(root, models=["four"], extra_flags=flags) as server:
            (member,) = server.members
            with urllib.request.urlopen(f"http://{server.http_address}/v2/models/four") as answer:
                assert member not in answer.read().decode()
            for path in ("stats", "four/config"):
                url = f"http://{server.http_address}/v2/models/{path}"
                if flags:
                    with pytest.raises(HTTPError, match="403"):
                        urllib.request.urlopen(url)
                else:
                    with urllib.request.urlopen(url) as answer:
                        assert member in answer.read().decode()
            with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as answer:
                assert f'model="{member}"' in answer.read().decode()
            with Client(server.http_address) as client:  # which does without
                np.testing.assert_array_equal(client.infer("four", {"x": ROWS})["z"], ROWS * 4)


def test_an_ensembles_error_may_name_a_private_member_and_pythons_does_not(tmp_path: Path) -> None:
    """Of a step of an ensemble Triton tells in its own words."""
    repository = qv.ModelRepository(tmp_path / "r")
    sizes = [TensorProto.FLOAT, ["n", "k"]]
    anything = graph([helper.make_node("Relu", ["x"], ["y"])], [("x", *sizes)], [("y", *sizes)])
    repository.add("anything").export_version(anything)
    repository.add("double").export_version(scale(2.0))
    for compiled in ("ensemble", "python"):
        made = qv.Pipeline(
            functions.after, inputs={"x": ("FP32", (None, None))}, output_names=["z"], compile_to=compiled
        )
        repository.add(compiled, qv.Platform.PIPELINE).export_version(made, sample_inputs={"x": ROWS})
    with EmbeddedTriton(tmp_path / "r") as server:
        (double,) = (name for name, member in server.members.items() if member == "double/1")
        with pytest.raises(InferenceServerException, match=f"unexpected shape for input 'x' for model '{double}'"):
            ask(server.grpc_address, "ensemble", x=ROWS[:, :3])
        with pytest.raises(InferenceServerException, match="input x of member double") as told:
            ask(server.grpc_address, "python", x=ROWS[:, :3])
        assert double not in str(told.value)


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


def test_a_load_that_fails_leaves_what_was_loaded_with_its_members(root: Path, tmp_path: Path) -> None:
    changing = Path(shutil.copytree(root, tmp_path / "r"))
    repository = qv.ModelRepository(changing)

    def ready() -> dict[str, str]:
        names = {status.name for status in server.control.index() if status.state == "READY"}
        return {name: server.members.get(name, name) for name in names}

    with EmbeddedTriton(changing, model_control="explicit") as server:
        server.load("four")
        server.load("power")
        before = ready()
        assert sorted(before.values()) == ["double/1", "four", "power"]
        repository.models["four"].export_version(
            qv.Pipeline(functions.eight.function, output_names=["z"], members={"double": "batched"})
        )
        (changing / "triple/1/model.onnx").write_bytes(b"no graph")
        with pytest.raises(InvalidInputError, match=r"triple/1/model\.onnx"):
            server.load("four")
        assert ready() == before
        server.unload("power")
        np.testing.assert_array_equal(ask(server.grpc_address, "four", x=ROWS)["z"], ROWS * 4)
        repository.add("empty", qv.Platform.PIPELINE).export_version(functions.four)
        repository.models["empty"].remove_version(1)
        with pytest.raises(NotFoundError, match=r"pipeline 'empty' in .* has no version"):
            server.load("empty")


def test_a_triton_of_somebody_else_is_told_which_packages_it_lacks(root: Path) -> None:
    """The repository's folder as it stands, loaded as any Triton would."""
    with EmbeddedTriton(root, model_control="explicit") as server:
        with pytest.raises(InvalidInputError) as caught:
            server.control.load("packaged", None, 60)
        assert "No module named 'pyclipper'; of its requirements.txt this server lacks pyclipper==" in str(caught.value)
        assert "put it into the image" in str(caught.value)
        for model in ("double", "power"):
            server.control.load(model, None, 60)
        # The newest version of `double` is served there, by its own policy, and not the one that was pinned.
        with pytest.raises(InferenceServerException, match=r"member 'double' failed: .*not ready"):
            ask(server.grpc_address, "power", x=ROWS)


async def test_pipelines_verify_on_the_server(root: Path, server: EmbeddedTriton) -> None:
    """Their golden tensors are what their functions answered in process, with the members in ONNX Runtime."""
    pipelines = sorted({model.name for model in server.served()} - {"double", "triple"})
    found = [row async for row in verify_served(RepositoryReader(root), server.http_address, pipelines)]
    assert [(row.entry, row.result, row.message) for row in found] == [(name, "verified", "") for name in pipelines]


def test_a_member_that_does_not_load_is_told_of_its_pipelines(root: Path, tmp_path: Path) -> None:
    """Business logic is ready without its members: the server says what Triton does not."""
    damaged = Path(shutil.copytree(root, tmp_path / "r"))
    (damaged / "pick/1/model.onnx").write_bytes(b"no graph")
    with EmbeddedTriton(damaged, models=["looking", "power"], allow_failures=True) as server:
        assert server.failures.keys() == {"looking"}
        told = server.failures["looking"]
        assert told.startswith(f"its member pick/1 does not load: {damaged}/pick/1/model.onnx: ")
        with pytest.raises(InferenceServerException, match="member 'pick' failed"):
            ask(server.grpc_address, "looking", row=np.array([0]))
        np.testing.assert_array_equal(ask(server.grpc_address, "power", x=ROWS)["z"], ROWS * 16)


def test_serve_says_what_it_keeps_for_pipelines(server: EmbeddedTriton, capsys: pytest.CaptureFixture[str]) -> None:
    serve._announce(server, Output.JSON)
    assert json.loads(capsys.readouterr().out)["members"] == sorted(server.members.values())
    serve._announce(server, Output.TEXT)
    assert "Kept for pipelines, not for clients: batched/1, double/1, pick/1" in capsys.readouterr().out
