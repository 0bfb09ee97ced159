"""What is special at Amazon's buckets: keys that other tools make and the library does not know, and who asks."""

import logging
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import AccessDeniedError, InvalidInputError
from gravswell.quiver.stores import Create, open_store

from .emulators import Server


def put(server: Server, key: str, data: bytes = b"") -> None:
    """As a tool does that takes any key."""
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{server.endpoint}/{key}", data, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=60):
        pass


@pytest.fixture
def amazon(amazon: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for variable, value in amazon.environment.items():
        monkeypatch.setenv(variable, value)
    return amazon


def test_folder_markers_are_no_entries(amazon: Server) -> None:
    """And that of the repository's own folder is not taken for a neighbour, who would be deleted for it."""
    amazon.make_bucket("markers")
    put(amazon, "markers/r", b"a neighbour's")
    for key in ("r/", "r/m/", "r/m/1/"):
        put(amazon, f"markers/{key}")
    repo = qv.ModelRepository("s3://markers/r")
    assert list(repo.models) == []
    repo.add("m")
    assert list(repo.models) == ["m"]
    assert repo.models["m"].versions == []
    repo.remove("m")
    repo.delete()
    assert open_store("s3://markers").read("r").data == b"a neighbour's"


def test_a_key_with_two_slashes_costs_its_own_folder(amazon: Server, caplog: pytest.LogCaptureFixture) -> None:
    amazon.make_bucket("slashes")
    repo = qv.ModelRepository("s3://slashes")
    repo.add("m")
    store = open_store("s3://slashes")
    store.write("m/sub/file", b"1", Create())
    put(amazon, "slashes/photos//cat.jpg", b"a cat")
    with caplog.at_level(logging.WARNING):
        assert list(qv.ModelRepository.open("s3://slashes").models) == ["m"]
    assert "s3://slashes/photos is left out" in caplog.text
    assert "photos//cat.jpg" in caplog.text or 'photos//"' in caplog.text
    assert [f.path for f in store.walk("m")] == ["config.pbtxt", "sub/file"]
    repo.remove("m")
    assert list(qv.ModelRepository.open("s3://slashes").models) == []


class _Expired(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        said = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        self.send_response(400)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None: ...


def test_credentials_that_have_expired(amazon: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Expired) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(AccessDeniedError, match=r"s3://bucket.*refused.*token has expired.*set AWS_ACCESS_KEY_ID"):
            open_store("s3://bucket").children()
        server.shutdown()


class _Elsewhere(_Expired):
    def do_GET(self) -> None:
        self.send_response(301)
        self.send_header("x-amz-bucket-region", "eu-central-1")
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_bucket_in_another_region(amazon: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(InvalidInputError, match=r"s3://bucket: the bucket seems .* set AWS_REGION to its own"):
            open_store("s3://bucket").children()
        server.shutdown()


PAGES = {
    "a console's": b'<!DOCTYPE html>\n<html><head><meta name="x"/></head><body><div id="root"></div></body></html>',
    "one that is no XML": b"<!doctype html><html><head><link rel=icon></head><body>Sign in<br></body></html>",
    "nothing": b"",
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_what_answers_with_a_page_is_no_empty_repository(
    amazon: Server, monkeypatch: pytest.MonkeyPatch, page: bytes
) -> None:
    """The console beside the API, or a proxy that wants to know who asks."""

    class Page(_Expired):
        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in {"Content-Type": "text/html", "Content-Length": str(len(page))}.items():
                self.send_header(name, value)
            self.send_header("ETag", '"page"')
            self.send_header("Last-Modified", "Sun, 22 Nov 2026 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(page)

        do_HEAD = do_GET  # noqa: N815 - as the base class calls it

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for look in (open_store("s3://bucket/r").children, lambda: qv.ModelRepository("s3://bucket/r")):
            with pytest.raises(InvalidInputError, match=f"s3://bucket.*{endpoint} does not speak S3.*AWS_ENDPOINT_URL"):
                look()
        server.shutdown()


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "config").write_text(
        "[profile sso]\nsso_session = work\n[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = lab\n"
        "[profile lab]\naws_access_key_id = a\naws_secret_access_key = b\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(("profile", "setting"), [("sso", "sso_session"), ("role", "role_arn")])
def test_a_profile_that_gets_its_keys_elsewhere(
    amazon: Server, profiles: None, monkeypatch: pytest.MonkeyPatch, profile: str, setting: str
) -> None:
    """Without boto3, which is no dependency: both ways out."""
    monkeypatch.setenv("AWS_PROFILE", profile)
    said = rf"profile {profile} gets its keys elsewhere \({setting}\).*export-credentials --profile {profile}.*boto3"
    with pytest.raises(AccessDeniedError, match=said):
        open_store("s3://bucket")


def test_a_profile_with_keys_and_one_that_is_not_there(
    amazon: Server, profiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    amazon.make_bucket("by-profile")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    open_store("s3://by-profile").write("a", b"1", Create())
    monkeypatch.setenv("AWS_PROFILE", "lba")
    with pytest.raises(AccessDeniedError, match="there is no profile lba"):
        open_store("s3://by-profile")


class _NoRole(_Expired):
    def do_PUT(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_no_credentials_and_a_machine_without_a_role(monkeypatch: pytest.MonkeyPatch, profiles: None) -> None:
    """One that does not answer, as a laptop's network, and one that refuses, as a pod's that must not ask its node."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _NoRole) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for port in (1, server.server_port):
            monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{port}")
            with pytest.raises(AccessDeniedError, match=r"no credentials for s3://bucket .*set AWS_ACCESS_KEY_ID"):
                open_store("s3://bucket").children()
        server.shutdown()
