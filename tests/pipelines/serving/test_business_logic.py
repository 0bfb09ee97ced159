"""Business logic on the real Triton: the user's function, with its members asked there."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from gravswell.quiver.reader import RepositoryReader
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton

from ...counting import counted_batches
from ...serving.triton.conftest import ROWS, ask
from .conftest import TABLE


def test_a_loop_and_a_branch_by_grpc_and_by_rest(server: EmbeddedTriton) -> None:
    expected = ROWS * 16, [4]
    by_grpc = ask(server.grpc_address, "power", x=ROWS)
    with Client(server.http_address) as client:
        by_rest = client.request("power", {"x": ROWS}).outputs
    for answer in (by_grpc, by_rest):
        np.testing.assert_array_equal(answer["z"], expected[0])
        np.testing.assert_array_equal(answer["rounds"], expected[1])
    assert ask(server.grpc_address, "power", ["rounds"], x=ROWS * 100)["rounds"].tolist() == [0], "only what was asked"


def test_calls_that_are_started_reach_a_member_at_the_same_time(server: EmbeddedTriton) -> None:
    """It waits for two requests to run them as one batch: a call that waited for the other's answer would run alone."""
    (member,) = [name for name, told in server.members.items() if told == "waiting/1"]
    with counted_batches(server, member, rows=2) as batches:
        np.testing.assert_array_equal(ask(server.grpc_address, "together", x=ROWS[:1])["y"], ROWS[:1] * 10 + 5)
    assert batches == {2: 1}


def test_text_goes_in_and_comes_out(server: EmbeddedTriton) -> None:
    answer = ask(server.grpc_address, "telling", words=np.array(["grüße", b"hi", ""], dtype=object))
    assert [text.decode() for text in answer["told"]] == ["GRÜSSE ✓", "HI ✓", " ✓"]
    assert answer["sizes"][:, 0].tolist() == [10, 4, 0]
    with pytest.raises(InferenceServerException, match=r"pipeline 'telling': .*tensor 'words': element 1 is not UTF-8"):
        ask(server.grpc_address, "telling", words=np.array([b"fine", b"\xff"], dtype=object))


def test_what_a_function_raises_is_told_with_its_line_and_ends_this_request_only(server: EmbeddedTriton) -> None:
    told = r"pipeline 'power': ValueError: x must be finite: größer .* \(in power, pipeline_source\.py line \d+\)"
    with pytest.raises(InferenceServerException, match=told):
        ask(server.grpc_address, "power", x=np.full((1, 4), np.inf, np.float32))
    assert ask(server.grpc_address, "power", x=ROWS)["rounds"].tolist() == [4]


def test_a_member_that_fails_is_named_as_the_function_names_it(server: EmbeddedTriton) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(server.grpc_address, "looking", row=np.array([7], np.int64))
    told = caught.value.message()
    assert "pipeline 'looking': member 'pick' failed: " in told
    assert "(in looking, pipeline_source.py line " in told
    assert "gravswell-member" not in told
    np.testing.assert_array_equal(
        ask(server.grpc_address, "looking", row=np.array([2, 0], np.int64))["y"], TABLE[[2, 0]]
    )


def test_a_function_may_catch_what_a_member_raises(server: EmbeddedTriton) -> None:
    answer = ask(server.grpc_address, "looking", row=np.array([-100], np.int64))
    np.testing.assert_array_equal(answer["y"], np.full((1, 4), 2))


def test_the_oracle_of_eight_ranks_and_two_graphs(server: EmbeddedTriton) -> None:
    """Ones by a matrix of 0.5, once after a sum with itself: every element is known. ``x`` goes in, and another out."""
    ones = np.ones((128, 96), np.float32)
    with Client(server.http_address) as client:
        by_rest = client.request("predict", {"x": ones, "y": ones}).outputs
    for answer in (ask(server.grpc_address, "predict", x=ones, y=ones), by_rest):
        np.testing.assert_array_equal(answer["x"], np.full((128, 16), -96, np.float32), strict=True)
        np.testing.assert_array_equal(answer["z"], np.full((128, 16), -48, np.float32), strict=True)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_one_graph_runs_once_and_the_other_as_often_as_asked(server: EmbeddedTriton, steps: int) -> None:
    answer = ask(server.grpc_address, "unrolled", x=ROWS, steps=np.array([steps]))
    np.testing.assert_array_equal(answer["state"], ROWS * 3 * 2**steps)


def test_what_a_function_imports_is_installed_for_it(server: EmbeddedTriton) -> None:
    answer = ask(server.grpc_address, "packaged", x=ROWS)
    assert (answer["area"].tolist(), answer["y"].tolist()) == ([9.0], (ROWS * 2).tolist())


def test_a_package_is_the_one_that_was_asked_for_whatever_the_server_has(server: EmbeddedTriton) -> None:
    answer = ask(server.grpc_address, "pinned", x=ROWS + 1000)
    assert answer["version"].tolist() == [b"24.0"]
    np.testing.assert_array_equal(answer["y"], (ROWS + 1000) * 2)


def test_a_batch_is_the_rows_of_one_request(server: EmbeddedTriton) -> None:
    with Client(server.http_address) as client:
        answers = client.infer("rows", {"x": np.tile(ROWS, (20, 1))}, batch_size=4)
    np.testing.assert_array_equal(answers["y"], np.tile(ROWS, (20, 1)) * 5)
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        ask(server.grpc_address, "rows", x=np.zeros((9, 4), np.float32))


def test_nothing_is_written_into_the_repository(root: Path, server: EmbeddedTriton) -> None:
    """Python would keep what it compiled beside each source; a version has the files of its manifest and no others."""
    reader = RepositoryReader(root)
    ask(server.grpc_address, "power", x=ROWS)
    for name in reader.entries():
        manifest, _ = reader.manifest(name, 1)
        files = [path for path in (root / name / "1").rglob("*") if path.is_file() and path.name != ".manifest.json"]
        assert {str(path.relative_to(root / name / "1")) for path in files} == set(manifest.files)
        for path in files:
            record = manifest.files[str(path.relative_to(root / name / "1"))]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256
