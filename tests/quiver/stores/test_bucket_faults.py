"""What a user reads, and what stays as it was, when a bucket cannot be had."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import AccessDeniedError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.extras import install
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import Create, burial, claims, objects, open_store

from .emulators import Server
from .proxy import Proxy, proxied

Affine = Callable[..., Any]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=3))


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between us and the server."""
    with proxied(server.endpoint) as proxy:
        for variable, value in server.behind(proxy.endpoint).items():
            monkeypatch.setenv(variable, value)
        yield proxy


@pytest.mark.parametrize(
    "url", ["gs://", "s3:///x", "az://a b", "gs://bucket/a/../b", "gs://bucket//a//b", "s3://u@b/x"]
)
def test_urls_that_cannot_be_right(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"names no bucket|no path inside"):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "package", "library", "extra"),
    [
        ("gs://b", "google.cloud", "google-cloud-storage", "gcs"),
        ("s3://b", "obstore", "obstore", "s3"),
        ("az://b", "azure.storage", "azure-storage-blob", "azure"),
    ],
)
def test_a_missing_library_names_its_extra(url: str, package: str, library: str, extra: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\nfrom gravswell.quiver import stores\nstores.open_store({url!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"UnsupportedError: {url} needs {library}: {install(extra)}" in done.stderr


def test_no_library_is_imported_for_a_folder(tmp_path: Path) -> None:
    program = (
        f"import sys\nfrom gravswell.quiver import stores\nstores.open_store({str(tmp_path)!r})\n"
        "assert not {'obstore', 'azure.core', 'google.cloud', 'google.cloud.storage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_bucket_that_is_not_there(server: Server) -> None:
    """Reading and writing, with the way to make it."""
    url = f"{server.scheme}://not-there-{server.scheme}"
    with pytest.raises(NotFoundError, match=rf"there is no bucket {url}: .* make it with `.*not-there"):
        qv.ModelRepository(url)
    with pytest.raises(NotFoundError, match="there is no bucket"):
        open_store(url).write("a", b"", Create())


class _Refusing(BaseHTTPRequestHandler):
    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _refuse  # noqa: N815 - as the base class calls them

    def log_message(self, *_: object) -> None: ...


def test_credentials_that_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        for variable, value in server.behind(f"http://127.0.0.1:{refusing.server_port}").items():
            monkeypatch.setenv(variable, value)
        store = open_store(f"{server.scheme}://bucket/repo")
        calls: list[Callable[[], Any]] = [
            store.children,
            lambda: store.read("a"),
            lambda: store.write("a", b"", Create()),
            lambda: store.delete("a"),
        ]
        for call in calls:
            with pytest.raises(AccessDeniedError, match=rf"{server.scheme}://bucket.*refused.*(set|run) "):
                call()
        refusing.shutdown()


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("STORAGE_EMULATOR_HOST", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    with pytest.raises(AccessDeniedError, match=r"no credentials for gs://bucket .*nothing\.json.*gcloud auth"):
        open_store("gs://bucket")
    with pytest.raises(AccessDeniedError, match="names no storage account; set AZURE_STORAGE_CONNECTION_STRING"):
        open_store("az://container")


def test_values_that_end_in_a_line_s_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a Secret that was made of files."""
    name = f"lines-{server.scheme}"
    server.make_bucket(name)
    for variable, value in server.environment.items():
        if server.scheme != "gs":  # whose secret is a file
            monkeypatch.setenv(variable, f"{value}\n")
    store = open_store(f"{server.scheme}://{name}")
    store.write("a", b"1", Create())
    assert store.read("a").data == b"1"


@pytest.mark.parametrize(
    "endpoint", ["minio:9000", "minio.storage.svc", "http://", "http://a b", "http://a:port", "http://a:0"]
)
def test_an_endpoint_of_amazon_that_is_no_url(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(InvalidInputError, match=f"s3://bucket: AWS_ENDPOINT_URL is '{endpoint}', and no URL: write it"):
        open_store("s3://bucket")


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://me:secret@minio:9000", "http://…@minio:9000"),
        ("http://me:sec/ret@minio:9000", "http://…@minio:9000"),
        ("me:sec ret@minio:9000", "…@minio:9000"),
        ("http://me:sec@ret@minio:port", "http://…@minio:port"),
    ],
)
def test_a_password_in_an_endpoint_of_amazon_is_not_told(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, shown: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(InvalidInputError, match=f"s3://bucket: AWS_ENDPOINT_URL_S3 is '{shown}', ") as told:
        open_store("s3://bucket")
    assert "sec" not in str(told.value)
    assert "ret" not in str(told.value).lower().replace("secret_access_key", "")


def test_a_key_of_amazon_that_no_request_can_carry(amazon: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in amazon.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "two\nlines")
    with pytest.raises(InvalidInputError, match=r"s3://bucket/a: no request can be made .* AWS_REGION and the keys"):
        open_store("s3://bucket").read("a")


def test_keys_of_an_aws_profile(amazon: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The library itself reads only the environment."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = b\n")
    (tmp_path / "config").write_text("[profile lab]\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_ENDPOINT_URL", amazon.endpoint)
    amazon.make_bucket("profiled")
    open_store("s3://profiled").write("a", b"1", Create())


def test_a_network_that_fails_once_is_not_noticed(
    bucket: str, proxy: Proxy, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=90))  # here it heals, however slow the machine is
    entry = qv.ModelRepository(bucket).add("m")
    proxy.heals = True
    for _ in range(4):
        proxy.left = 3000
        entry.export_version(affine())
    assert proxy.cuts == 4
    assert entry.versions == [1, 2, 3, 4]


@pytest.mark.parametrize("after", [0, 2_000, 200_000])
def test_a_network_cut_in_mid_upload(
    bucket: str, server: Server, proxy: Proxy, affine: Affine, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """A clear error, the old state readable, and the next export clears the remains."""
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=0.5))  # nothing heals, and several calls find that out
    entry = qv.ModelRepository(bucket).add("m")
    entry.export_version(affine(200_000))
    proxy.left = after
    with pytest.raises(UnavailableError, match=rf"{bucket}.*cannot be reached .*check the network"):
        entry.export_version(affine(200_000))
    with pytest.raises(UnavailableError):
        RepositoryReader(bucket).versions("m")
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    repo = qv.ModelRepository.open(bucket)
    assert repo.models["m"].versions == [1]
    monkeypatch.setattr(claims, "EXPIRY", timedelta(0))
    monkeypatch.setattr(burial, "EXPIRY", timedelta(0))
    repo.models["m"].export_version(affine(200_000))
    published = repo.models["m"].versions
    assert len(published) == 2
    store = open_store(bucket)
    assert not [f.path for f in store.walk("") if f.path.endswith(".claim.json")]
