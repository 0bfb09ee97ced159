"""What a cloud gives a pod in place of keys: the endpoint that gives it, made here, and a real server of buckets.

Google's metadata server (GKE's workload identity) and the pod identity agent of EKS speak plain HTTP beside the pod.
IRSA and Azure's workload identity exchange the ServiceAccount's token over HTTPS at an address of the cloud's; one of
ours stands here for it, with a certificate of ours: the libraries have variables for both. So all of the way is walked:
the library asks the endpoint, and its requests to the bucket carry what it was given. Of GKE and pod identity the
servers of buckets believe whoever asks, so the requests are looked at; the others look at keys and tokens themselves.
"""

import base64
import json
import logging
import re
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import CredentialUnavailableError, EnvironmentCredential
from azure.storage.blob import ContainerClient

from gravswell.errors import AccessDeniedError, InvalidInputError, UnavailableError
from gravswell.quiver.stores import Overwrite, azure_login, open_store
from gravswell.quiver.stores.azure_login import Identity, NoTokenError
from gravswell_operator.devcluster.certificates import Authority

from . import emulators
from .emulators import ACCOUNT, HOST, Server
from .endpoint import Endpoint, serving
from .proxy import Proxy, proxied


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """What signs the certificate of the cloud, which is ours: ``cloud.crt``."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("cloud", "cloud", hosts=[HOST])
    return made


@pytest.fixture
def cloud(authority: Authority) -> Iterator[Endpoint]:
    """An endpoint of HTTPS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.directory / "cloud.crt", authority.directory / "cloud.key")
    with serving(context) as made:
        yield made


@pytest.fixture(autouse=True)
def no_other_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod has no home with keys in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"),
        *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET"),
    ):
        monkeypatch.delenv(name, raising=False)


def use(url: str) -> None:
    """Write and read a file, and list."""
    store = open_store(url, create=True, patience=timedelta(seconds=5))
    store.write("x", b"1", Overwrite())
    assert store.read("x").data == b"1"
    assert store.children().files == ("x",)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we, or Azure's libraries, have logged; threads that others left behind may log what they like."""
    return [one.getMessage() for one in caplog.records if one.name.partition(".")[0] in ("azure", "msal", "gravswell")]


def sent(proxy: Proxy, header: str) -> set[str]:
    """The values of a header in all requests; "" for one without it."""
    found = (re.search(rf"^{header}: (.*?)\r?$", head, re.IGNORECASE | re.MULTILINE) for head in proxy.heads)
    return {one[1] if one else "" for one in found}


def test_the_metadata_server_of_gke_says_who_a_pod_is(
    google: Server, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = "lister@project.iam.gserviceaccount.com"
    endpoint.answers = {"/computeMetadata/v1/universe/universe-domain": "googleapis.com"}
    for name in ("default", email):  # the library asks by the latter once a thread of its own has found it out
        account = f"/computeMetadata/v1/instance/service-accounts/{name}/"
        endpoint.answers[account] = {"email": email, "aliases": ["default"], "scopes": []}
        endpoint.answers[f"{account}token"] = {"access_token": "of-the-pod", "expires_in": 3600, "token_type": "Bearer"}
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
        assert {asked.headers["authorization"] for asked in endpoint.asked} == {"of-the-pod"}
        endpoint.status = 403
        with pytest.raises(AccessDeniedError, match="s3://identity"):
            use("s3://identity/r")


ROLES = "arn:aws:iam::123456789012:role"


def administer(amazon: Server, action: str, **parameters: str) -> None:
    """Call Amazon's IAM, as whoever made the roles did."""
    body = urllib.parse.urlencode({"Action": action, "Version": "2010-05-08", **parameters}).encode()
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/iam/aws4_request, SignedHeaders=h"}
    with urllib.request.urlopen(urllib.request.Request(amazon.endpoint, body, signed), timeout=60):
        pass


def policy(*actions: str) -> str:
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
def guarded(amazon: Server) -> Iterator[Server]:
    """Amazon's server, which holds every request but the next to its signature, its session and what its role may do.

    There is a role ``lister`` that may use buckets, and one, ``guest``, that may do nothing.
    """

    def believe(requests: float) -> None:
        url, body = f"{amazon.endpoint}/moto-api/reset-auth", str(requests).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "text/plain"}), timeout=60):
            pass

    amazon.make_bucket("web-identity")
    trust = policy("sts:AssumeRoleWithWebIdentity")
    for role in ("lister", "guest"):
        administer(amazon, "CreateRole", RoleName=role, AssumeRolePolicyDocument=trust)
    may = policy("s3:ListBucket", "s3:GetObject", "s3:PutObject")
    administer(amazon, "PutRolePolicy", RoleName="lister", PolicyName="models", PolicyDocument=may)
    believe(1)  # the exchange of the token itself, which nobody signs
    try:
        yield amazon
    finally:
        believe(float("inf"))
        administer(amazon, "DeleteRolePolicy", RoleName="lister", PolicyName="models")
        for role in ("lister", "guest"):
            administer(amazon, "DeleteRole", RoleName=role)


@pytest.fixture
def pod_of_eks(
    guarded: Server, cloud: Endpoint, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What EKS's webhook puts into a pod whose ServiceAccount names ``lister``, and where the cloud is here."""
    token = tmp_path / "token"
    token.write_text("of-the-service-account")
    cloud.behind = guarded.endpoint
    for name, value in {
        "AWS_ROLE_ARN": f"{ROLES}/lister",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_STS_REGIONAL_ENDPOINTS": "regional",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": guarded.endpoint,
        "AWS_ENDPOINT_URL_STS": f"https://{cloud.address}",
        "SSL_CERT_FILE": str(authority.certificate),
    }.items():
        monkeypatch.setenv(name, value)


def test_irsa_exchanges_the_token_of_the_service_account_for_the_keys_of_its_role(
    pod_of_eks: None, cloud: Endpoint
) -> None:
    use("s3://web-identity/r")
    (asked,) = cloud.asked
    assert asked.fields["Action"] == "AssumeRoleWithWebIdentity"
    assert asked.fields["RoleArn"] == f"{ROLES}/lister"
    assert asked.fields["WebIdentityToken"] == "of-the-service-account"


def test_a_role_of_irsa_that_may_nothing_in_the_bucket(pod_of_eks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ROLE_ARN", f"{ROLES}/guest")
    with pytest.raises(AccessDeniedError, match=r"s3://web-identity/r/x was refused.*\(Access Denied\)"):
        use("s3://web-identity/r")


def test_a_role_of_irsa_that_does_not_trust_the_service_account(pod_of_eks: None, cloud: Endpoint) -> None:
    cloud.status = 403
    said = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    cloud.refusal = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>AccessDenied</Code><Message>{said}</Message></Error></ErrorResponse>"
    )
    with pytest.raises(AccessDeniedError, match=said):
        use("s3://web-identity/r")


TENANT = "6f9c1e10-0000-4000-8000-000000000001"


def entra_token(**claims: object) -> str:
    """A token as Entra signs them, but for the signature, at which azurite does not look."""
    now = int(time.time())
    said = {"aud": "https://storage.azure.com", "iss": f"https://sts.windows.net/{TENANT}/", "nbf": now, "iat": now}
    parts = ({"alg": "RS256", "typ": "JWT"}, {**said, "exp": now + 3600, **claims}, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)


@pytest.fixture(scope="module")
def guarded_azure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Azure's server of blobs, which looks at tokens: for whom they are, from whom, and until when."""
    with emulators.azure(tmp_path_factory.mktemp("azure"), authority) as server:
        server.make_bucket("workload-identity")
        yield server


@pytest.fixture
def pod_of_aks(
    guarded_azure: Server, cloud: Endpoint, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What AKS's webhook puts into a pod that uses workload identity, and where the cloud is here."""
    token = tmp_path / "azure-identity-token"
    token.write_text("of-the-service-account")
    for name, value in {
        "AZURE_CLIENT_ID": "11111111-0000-4000-8000-000000000002",
        "AZURE_TENANT_ID": TENANT,
        "AZURE_FEDERATED_TOKEN_FILE": str(token),
        "AZURE_AUTHORITY_HOST": f"https://{cloud.address}/",
        "AZURE_STORAGE_ACCOUNT": ACCOUNT,
        "AZURE_STORAGE_ENDPOINT": f"{guarded_azure.endpoint}/{ACCOUNT}",
        "REQUESTS_CA_BUNDLE": str(authority.certificate),
    }.items():
        monkeypatch.setenv(name, value)


def test_azures_workload_identity_exchanges_the_token_of_the_service_account(pod_of_aks: None, cloud: Endpoint) -> None:
    path = f"/{TENANT}/oauth2/v2.0/token"
    cloud.answers = {path: {"access_token": entra_token(), "expires_in": 3600, "token_type": "Bearer"}}
    use("az://workload-identity/r")
    (asked,) = (one for one in cloud.asked if one.path == path)
    assert asked.fields["client_assertion"] == "of-the-service-account"
    assert asked.fields["client_id"] == "11111111-0000-4000-8000-000000000002"
    assert asked.fields["scope"] == "https://storage.azure.com/.default"


def test_a_token_of_azure_that_the_store_does_not_take(pod_of_aks: None, cloud: Endpoint) -> None:
    stale = entra_token(exp=int(time.time()) - 60)
    answer = {"access_token": stale, "expires_in": 3600, "token_type": "Bearer"}
    cloud.answers = {f"/{TENANT}/oauth2/v2.0/token": answer}
    with pytest.raises(AccessDeniedError, match=r"az://workload-identity/r/x was refused.*The token is expired"):
        use("az://workload-identity/r")


def test_of_a_signature_that_azure_refuses_one_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's detail goes on with all that it signed itself."""
    error = HttpResponseError("Server failed to authenticate the request.\nRequestId:1")
    error.status_code = 403
    signed = "Server used following string to sign: 'GET\n\n\nx-ms-date:Sun'."
    error.additional_info = {"authenticationerrordetail": signed}
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_KEY", emulators.KEY)

    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ContainerClient, "download_blob", refused)
    with pytest.raises(AccessDeniedError, match=r"authenticate the request\. Server used following string") as told:
        open_store("az://container").read("a")
    assert "\n" not in str(told.value)


def test_an_identity_of_azure_that_does_not_trust_the_service_account(
    pod_of_aks: None, cloud: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked once, and its answer is told once."""
    cloud.status = 401
    said = "AADSTS700213: No matching federated identity record found for presented assertion subject"
    cloud.refusal = {"error": "invalid_client", "error_description": said}
    with pytest.raises(AccessDeniedError, match=f"az://workload-identity.*{said}"):
        use("az://workload-identity/r")
    assert len(cloud.asked) == 1
    assert not told(caplog)


def test_an_azure_that_gives_out_no_tokens_now(pod_of_aks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://{HOST}:1/")
    with pytest.raises(UnavailableError, match=r"az://workload-identity/r/x cannot be reached .*port=1"):
        use("az://workload-identity/r")


def test_an_azure_that_does_not_answer(pod_of_aks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_login, "TIMEOUTS", {"connection_timeout": 0.2, "read_timeout": 0.2})
    with socket.create_server((HOST, 0)) as silent:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://{HOST}:{silent.getsockname()[1]}/")
        with pytest.raises(UnavailableError, match=r"az://workload-identity/r/x cannot be reached .*timed out"):
            use("az://workload-identity/r")


def test_no_identity_of_azure_at_all(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")  # nor is the machine asked that this runs on
    with pytest.raises(AccessDeniedError, match=r"no credentials for az://none were found .*set AZURE_STORAGE_CON"):
        use("az://none/r")
    assert not told(caplog)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (
            ["AZURE_CLIENT_ID"],
            "AZURE_CLIENT_ID set without AZURE_TENANT_ID and one of AZURE_CLIENT_SECRET, "
            "AZURE_CLIENT_CERTIFICATE_PATH, AZURE_FEDERATED_TOKEN_FILE",
        ),
        (
            ["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"],
            "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET set without AZURE_TENANT_ID",
        ),
        (
            ["AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"],
            "AZURE_TENANT_ID and AZURE_CLIENT_SECRET set without AZURE_CLIENT_ID",
        ),
        (["AZURE_FEDERATED_TOKEN_FILE"], "AZURE_FEDERATED_TOKEN_FILE set without AZURE_CLIENT_ID and AZURE_TENANT_ID"),
    ],
)
def test_of_half_an_identity_of_azure_it_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, there: list[str], words: str
) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in there:
        monkeypatch.setenv(name, "something")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")  # nor is the machine asked that this runs on
    with pytest.raises(AccessDeniedError, match=rf"no credentials for az://none were found \({words}\); set AZURE_STO"):
        use("az://none/r")
    assert not told(caplog)


def test_the_log_of_azures_library_is_muted_of_what_we_ask_it_and_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that asks for tokens of its own reads what the library says of those."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    log = logging.getLogger("azure.identity._credentials.environment")
    asked: list[str] = []

    def ask(*_: object, **__: object) -> None:
        log.warning("while we ask")
        other = threading.Thread(target=log.warning, args=["of another meanwhile"])
        other.start()
        other.join()
        if not asked:
            asked.append("another")
            with pytest.raises(NoTokenError):  # whose end is not ours
                Identity().get_token("scope")
            log.warning("while we still ask")
        raise CredentialUnavailableError("none")

    monkeypatch.setattr(EnvironmentCredential, "get_token", ask)
    with pytest.raises(NoTokenError):
        Identity().get_token("scope")
    assert asked
    log.warning("of their own")
    assert told(caplog) == ["of another meanwhile", "of another meanwhile", "of their own"]
    caplog.clear()
    monkeypatch.setattr(logging.getLogger("azure.identity"), "level", logging.WARNING)
    with pytest.raises(NoTokenError):
        Identity().get_token("scope")
    assert "while we ask" in told(caplog), "who sets a level for it wants to read it"


def test_an_identity_of_azure_is_told_to_no_server_without_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://{HOST}:1/{ACCOUNT}")
    with pytest.raises(InvalidInputError, match=r"az://plain cannot be asked at http://.*HTTPS.*AZURE_STORAGE_KEY"):
        open_store("az://plain/r")
