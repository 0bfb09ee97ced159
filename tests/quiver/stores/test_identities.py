"""What a cloud gives a pod in place of keys: the endpoint beside it, made here, and a real server of buckets.

Google's metadata server (GKE's workload identity) and the pod identity agent of EKS speak plain HTTP, so all of the way
is walked: the library asks the endpoint, and its requests to the bucket carry what it was given. The servers here
believe whoever asks, so the requests are looked at. IRSA and Azure's workload identity exchange tokens over HTTPS,
at the clouds' own addresses: they are not tried here.
"""

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gravswell.errors import AccessDeniedError
from gravswell.quiver.stores import Overwrite, open_store

from .emulators import HOST, Server
from .proxy import Proxy, proxied


class Endpoint:
    """Answers by path, without its query: JSON, or nothing for what has a status."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.status = 200
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Path and headers, their names in lower case."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                outer.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
                answer = outer.answers.get(path, "")
                body = b"" if outer.status != 200 else answer.encode() if isinstance(answer, str) else _json(answer)
                self.send_response(outer.status)
                self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.address = f"{HOST}:{self.server.server_port}"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(10)


@pytest.fixture(autouse=True)
def no_other_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod has no home with keys in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


def use(url: str) -> None:
    """Write and read a file, and list."""
    store = open_store(url, create=True, patience=timedelta(seconds=5))
    store.write("x", b"1", Overwrite())
    assert store.read("x").data == b"1"
    assert store.children().files == ("x",)


def sent(proxy: Proxy, header: str) -> set[str]:
    """The values of a header in all requests; "" for one without it."""
    found = (re.search(rf"^{header}: (.*?)\r?$", head, re.IGNORECASE | re.MULTILINE) for head in proxy.heads)
    return {one[1] if one else "" for one in found}


def test_the_metadata_server_of_gke_says_who_a_pod_is(
    google: Server, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = "/computeMetadata/v1/instance/service-accounts/default/"
    endpoint.answers = {
        account: {"email": "lister@project.iam.gserviceaccount.com", "aliases": ["default"], "scopes": []},
        f"{account}token": {"access_token": "of-the-pod", "expires_in": 3600, "token_type": "Bearer"},
        "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
    }
    google.make_bucket("identity")
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, endpoint.address)
    with proxied(google.endpoint) as proxy:
        monkeypatch.setenv("API_ENDPOINT_OVERRIDE", proxy.endpoint)  # an emulator's own variable means: as nobody
        use("gs://identity/r")
        assert sent(proxy, "authorization") == {"Bearer of-the-pod"}
        endpoint.status = 403  # the ServiceAccount has no identity that may
        with pytest.raises(AccessDeniedError, match="gs://identity"):
            use("gs://identity/r")


def test_the_pod_identity_agent_of_eks_says_who_a_pod_is(
    amazon: Server, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = {"AccessKeyId": "ASIAPOD", "SecretAccessKey": "secret", "Token": "session", "Expiration": until}
    endpoint.answers = {"/v1/credentials": keys}
    token = tmp_path / "eks-pod-identity-token"
    token.write_text("of-the-pod")
    amazon.make_bucket("identity")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{endpoint.address}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    with proxied(amazon.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        use("s3://identity/r")
        assert sent(proxy, "x-amz-security-token") == {"session"}
        assert all("Credential=ASIAPOD/" in value for value in sent(proxy, "authorization"))
        assert {headers["authorization"] for _, headers in endpoint.asked} == {"of-the-pod"}
        endpoint.status = 403
        with pytest.raises(AccessDeniedError, match="s3://identity"):
            use("s3://identity/r")
