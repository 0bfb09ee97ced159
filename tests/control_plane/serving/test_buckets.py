"""Repositories in buckets of each kind, on real servers that speak the three protocols: from the export to the answer.

One entry goes its way through ``gs://`` and through the loss of the bucket. ``s3://`` and ``az://`` are read by others
beside it, with the credentials of Secrets that are spelt as the clouds' own libraries spell them.
"""

import base64
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tritonclient.grpc import InferenceServerClient, InferInput

from gravswell import quiver as qv
from gravswell.serving.triton.ports import held_port

from ...quiver.stores import emulators
from ...serving.agent.versions import WIDTH, scaling_graph
from .conftest import ENTRY

ALIAS = "champion"
GONE = "http://127.0.0.1:9"


class Google:
    """A server of ``gs://`` that can be stopped, and that a user here reaches as its pods do."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port, self._running = folder, port, ExitStack()
        self.endpoint = f"http://{emulators.HOST}:{port}"

    def start(self) -> None:
        objects = self._folder / "objects"
        is_new = not objects.exists()
        objects.mkdir(exist_ok=True)
        server = self._running.enter_context(emulators.google(self._folder, port=self._port, objects=objects))
        if is_new:
            server.make_bucket("shelf")

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Google]:
    # Held by the whole module: while the server is down, somebody else could be given its port.
    with held_port(emulators.HOST) as port, pytest.MonkeyPatch.context() as here:
        server = Google(tmp_path_factory.mktemp("google"), port)
        server.start()
        here.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        yield server
        server.stop()


def export(url: str, number: int) -> None:
    """Publish a version that multiplies by ``number``, and let the alias name it."""
    repo = qv.ModelRepository(url)
    entry = repo.models[ENTRY] if ENTRY in repo.models else repo.add(ENTRY, platform=qv.Platform.ONNX)
    assert entry.export_version(onnx.load_from_string(scaling_graph(float(number)))).endswith(f"/{number}/model.onnx")
    entry.promote(number, ALIAS)


def write_secret(place, name, **data):
    place.create("v1", "Secret", name, data={k: base64.b64encode(v.encode()).decode() for k, v in data.items()})


def make_server(place, name, url, *, cache=None, **secret):
    """A repository with its Secret, a server and a Model, all of one name; ``cache`` is the server's claim for it."""
    write_secret(place, name, **secret)
    place.make_repository(name, url=url, credentialsSecretRef={"name": name})
    union = {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": cache}}
    place.make_server(name, repositoryRef={"name": name}, **({"cache": union} if cache else {}))
    place.make_model(name, serverRef={"name": name}, version=ALIAS)


def amazons_secret(server):
    keys = {name: server.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    return {**keys, "region": "us-east-1", "endpoint": server.endpoint}


def azures_secret(server):
    account = {"AZURE_STORAGE_ACCOUNT": emulators.ACCOUNT, "AZURE_STORAGE_KEY": emulators.KEY}
    return {**account, "endpoint": f"{server.endpoint}/{emulators.ACCOUNT}"}


class Tokens(ThreadingHTTPServer):
    """Gives a token to whoever shows the signed word of a service account, and notes whose it was."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Token)
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def key_file(self, account: str) -> str:
        """A service account's key file, as Google's console writes it."""
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        address = f"http://127.0.0.1:{self.server_port}/token"
        known = {"type": "service_account", "client_email": account, "token_uri": address}
        return json.dumps({**known, "private_key": key.decode(), "private_key_id": "1", "project_id": "lab"})


class _Token(BaseHTTPRequestHandler):
    server: Tokens

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        claims = body["assertion"][0].split(".")[1]
        self.server.asked.append(json.loads(base64.urlsafe_b64decode(claims + "=="))["iss"])
        answer = json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": 3600}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def tokens() -> Iterator[Tokens]:
    with Tokens() as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder of the server's node cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def serving(place, google, tokens, cache):
    """A server, and at once with it repositories that are had by a key file, and that cannot be had."""
    export("gs://shelf/zoo", 1)
    place.make_claim("cache", cache)
    make_server(place, "google", "gs://shelf/zoo", cache="cache", endpoint=google.endpoint)
    # The library's own variable for another address, which is asked with the key where an emulator is asked without.
    key_file = {"credentials.json": tokens.key_file("reader@lab"), "API_ENDPOINT_OVERRIDE": google.endpoint}
    write_secret(place, "keyed", **key_file)
    write_secret(place, "away", endpoint=GONE)
    write_secret(place, "keyless", other="key")
    for name, url, secret in (
        ("keyed", "gs://shelf/zoo", "keyed"),
        ("absent", "gs://no-such-shelf/zoo", "google"),
        ("away", "gs://shelf/zoo", "away"),
        ("keyless", "gs://shelf/zoo", "keyless"),
    ):
        place.make_repository(name, url=url, credentialsSecretRef={"name": secret})
    until_serving(place, "google", 1)
    return place


def until_serving(place, name, version):
    place.until(lambda: (place.get("model", name).get("status") or {}).get("loadedVersion") == version)
    for kind in ("modelrepository", "inferenceserver", "model"):
        place.condition(kind, name, status="True")


def pod(place, server):
    (found,) = (
        pod
        for pod in place.objects("pods", selector=f"gravswell.dev/server={server}")
        if "deletionTimestamp" not in pod["metadata"]
    )
    return found


def answer(place, server):
    """By how much the server multiplies, asked by gRPC."""
    address = f"{pod(place, server)['status']['podIP']}:8001"
    rows = np.ones((3, WIDTH), np.float32)
    asked = InferInput("x", list(rows.shape), "FP32").set_data_from_numpy(rows)
    with InferenceServerClient(address, channel_args=[("grpc.enable_http_proxy", 0)]) as client:
        (factor,) = set(client.infer(ENTRY, [asked]).as_numpy("y").flatten())
    return float(factor)


def test_what_is_exported_into_a_bucket_is_served(serving):
    assert answer(serving, "google") == 1.0
    status = serving.get("modelrepository", "google")["status"]
    assert [(entry["name"], entry["latest"]) for entry in status["models"]] == [(ENTRY, 1)]


def test_a_version_that_is_promoted_arrives(serving):
    before = pod(serving, "google")["metadata"]["uid"]
    export("gs://shelf/zoo", 2)
    until_serving(serving, "google", 2)
    assert answer(serving, "google") == 2.0
    assert pod(serving, "google")["metadata"]["uid"] == before


def test_a_key_file_is_who_asks(serving, tokens):
    serving.condition("modelrepository", "keyed", status="True")
    assert set(tokens.asked) == {"reader@lab"}


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("absent", "RepositoryNotFound", ["there is no bucket gs://no-such-shelf", "gcloud storage buckets create"]),
        ("away", "RepositoryUnavailable", ["gs://shelf", "cannot be reached", "port=9", "check the network"]),
        ("keyless", "AccessDenied", ["the Secret keyless of credentialsSecretRef does not open", "credentials.json"]),
    ],
)
def test_a_bucket_that_cannot_be_had_is_named_with_the_fact_and_the_way_out(serving, name, reason, words):
    accessible = serving.condition("modelrepository", name, "Accessible", status="False", reason=reason)
    assert [word for word in words if word not in accessible["message"]] == []
    assert serving.condition("modelrepository", name, status="False")["reason"] == reason


@pytest.mark.parametrize(("name", "secret"), [("amazon", amazons_secret), ("azure", azures_secret)])
def test_the_other_clouds_buckets_are_served_too(place, tmp_path, monkeypatch, name, secret):
    with getattr(emulators, name)(tmp_path) as server:
        server.make_bucket("shelf")
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        url = f"{server.scheme}://shelf/zoo"
        export(url, 1)
        make_server(place, name, url, **secret(server))
        until_serving(place, name, 1)
        assert answer(place, name) == 1.0
        for kind in ("model", "inferenceserver", "modelrepository"):
            place.delete(kind, name)


def takes_traffic(place):
    """Whether the server has a pod again, and that is ready."""
    found = place.objects("pods", selector="gravswell.dev/server=google")
    going = [p for p in found if "deletionTimestamp" in p["metadata"]]
    ready = [{c["type"]: c["status"] for c in p["status"].get("conditions", ())}.get("Ready") for p in found]
    return not going and ready == ["True"]


def restarted(place):
    """Whether both containers of the server run again, and the pod takes traffic."""
    statuses = pod(place, "google")["status"]["containerStatuses"]
    return takes_traffic(place) and all(c["restartCount"] >= 1 for c in statuses)


def test_without_its_bucket_a_server_answers_restarts_moves_and_goes_on(serving, google, cache):
    status = serving.get("model", "google")["status"]
    version = status["loadedVersion"]
    serving.until((cache / "versions" / status["loadedDigest"]).is_dir)
    google.stop()
    away = serving.condition("modelrepository", "google", "Accessible", status="False", reason="RepositoryUnavailable")
    assert "gs://shelf" in away["message"]
    assert answer(serving, "google") == version
    before = pod(serving, "google")
    for status in before["status"]["containerStatuses"]:
        os.kill(int(status["containerID"].rpartition("/")[2]), signal.SIGKILL)
    serving.until(lambda: restarted(serving))
    assert answer(serving, "google") == version
    assert pod(serving, "google")["metadata"]["uid"] == before["metadata"]["uid"]
    serving.condition("inferenceserver", "google", status="True")

    serving.delete("pod", before["metadata"]["name"])
    serving.until(lambda: serving.replaced(before["metadata"]["uid"]) and takes_traffic(serving))
    assert answer(serving, "google") == version, "a new pod has it from the cache"

    google.start()
    export("gs://shelf/zoo", version + 1)
    until_serving(serving, "google", version + 1)
    assert answer(serving, "google") == version + 1
