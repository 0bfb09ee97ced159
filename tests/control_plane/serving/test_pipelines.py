"""A pipeline and a fusion from end to end: several models as one, with ``models: All`` on a real Triton."""

import re
import urllib.request
from urllib.error import HTTPError

import numpy as np
import onnx
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from gravswell import quiver as qv
from gravswell.errors import NotFoundError
from gravswell.serving import Client
from gravswell_operator import names

from ...serving.agent.versions import WIDTH, publish_member, publish_pipeline, scaling_graph
from .conftest import ENTRY

CHAIN, ZOO, MEMBERS = "chain", "zoo", ("first", "second")


@pytest.fixture(scope="module")
def serving(place):
    """``chain`` over its two members, ``zoo``, and ``scale`` for which there is no Model."""
    first, second = (publish_member(place.repository, *one) for one in (("first", 1, 2.0), ("second", 1, 3.0)))
    publish_pipeline(place.repository, CHAIN, 1, 6.0, first, second)
    fused = qv.fuse([onnx.load_from_string(scaling_graph(factor)) for factor in (7.0, 8.0)], ZOO)
    qv.ModelRepository.open(place.repository).add(ZOO).export_version(fused)
    place.make_repository()
    place.make_server(models="All")
    for entry in (CHAIN, ZOO):
        place.make_model(entry, entry=entry)
    for entry in (CHAIN, ZOO):
        until_served(place, entry, 1)
    return place, second


def until_served(place, entry, version):
    place.until(lambda: place.get("model", entry).get("status", {}).get("loadedVersion") == version)
    place.condition("model", entry, status="True")
    place.condition("model", entry, "Verified", status="True", reason="GoldenReproduced")


def until_all_serve(place, **versions):
    """Wait until the replica serves these, and the server's status names no other."""
    wanted = [{"name": name, "version": version, "replicas": 1} for name, version in sorted(versions.items())]
    place.until(lambda: place.get("inferenceserver", "server")["status"].get("models") == wanted)
    place.condition("inferenceserver", "server", status="True")


def told(place, path):
    """What a client without the key is told of models."""
    address = place.pod()["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:{names.PORT_HTTP}/v2/models/{path}", timeout=30) as answer:
        return answer.read().decode()


def ask(place, entry, **inputs):
    with Client(f"{place.pod()['status']['podIP']}:{names.PORT_HTTP}") as client:
        return client.infer(entry, inputs)["y"]


def test_a_pipeline_is_served_and_its_members_are_not(serving):
    place, _ = serving
    until_all_serve(place, **{CHAIN: 1, ENTRY: 1, ZOO: 1})
    assert place.answer(CHAIN) == 6.0
    assert place.answer() == 1.0
    for member in MEMBERS:
        with pytest.raises(NotFoundError, match=f"model '{member}' is not served .*unknown model"):
            ask(place, member, x=np.ones((1, WIDTH), np.float32))


def test_a_fusion_answers_each_row_by_its_own_model(serving):
    place, _ = serving
    answer = ask(place, ZOO, model_id=np.array([[2], [1], [2]]), x=np.ones((3, WIDTH), np.float32))
    assert answer.tolist() == [[factor] * WIDTH for factor in (8.0, 7.0, 8.0)]


def test_a_pipelines_next_version_brings_its_member_along(serving):
    place, second = serving
    publish_pipeline(place.repository, CHAIN, 2, 15.0, publish_member(place.repository, "first", 2, 5.0), second)
    until_served(place, CHAIN, 2)
    until_all_serve(place, **{CHAIN: 2, ENTRY: 1, ZOO: 1})
    assert place.answer(CHAIN) == 15.0
    with pytest.raises(NotFoundError, match="unknown model"):
        ask(place, "first", x=np.ones((1, WIDTH), np.float32))


def test_a_server_closes_what_tells_the_names_of_members_where_its_user_asks_for_that(serving):
    place, _ = serving
    found = re.search(r"gravswell-member-first-\w+", told(place, f"{CHAIN}/config"))
    assert found is not None
    assert found[0] in told(place, "stats")
    before = place.pod()["metadata"]["uid"]
    place.patch("inferenceserver", "server", {"spec": {"restrictedAPIs": ["model-config", "statistics"]}})
    place.until(lambda: place.replaced(before))
    place.until_one_replica()
    until_all_serve(place, **{CHAIN: 2, ENTRY: 1, ZOO: 1})
    for path in ("stats", f"{CHAIN}/stats", f"{CHAIN}/config", f"{ENTRY}/config"):
        with pytest.raises(HTTPError, match="403"):
            told(place, path)
    assert "gravswell-member" not in told(place, CHAIN)
    address = f"{place.pod()['status']['podIP']}:{names.PORT_GRPC}"
    with grpc.InferenceServerClient(address, channel_args=[("grpc.enable_http_proxy", 0)]) as client:
        for question in (client.get_inference_statistics, lambda: client.get_model_config(CHAIN)):
            with pytest.raises(InferenceServerException, match="restricted"):
                question()
    x = np.ones((1, WIDTH), np.float32)
    assert ask(place, CHAIN, x=x).tolist() == [[15.0] * WIDTH], "our client does without both"
    with pytest.raises(NotFoundError, match="unknown model"):  # each pod has names of its own
        ask(place, found[0], x=x)
