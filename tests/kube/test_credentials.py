"""Who we are: the pod's own account, kubeconfigs and their plugins; and credentials that rotate."""

import json
import ssl
import stat
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.config import kube_config

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiForbiddenError, ApiUnavailableError
from gravswell.kube.resources import POD
from gravswell_operator.devcluster.certificates import Authority

from .conftest import serving


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    for name, content in (("token", "first\n"), ("ca.crt", "certificate"), ("namespace", "models")):
        (tmp_path / name).write_text(content)
    return {"GRAVSWELL_SERVICEACCOUNT": str(tmp_path), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def replace(path: Path, content: str) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text(content)
    fresh.replace(path)


def in_pod(server, environ) -> credentials.Account:
    """The account of a pod whose API server is ``server``, which has no certificate."""
    account = credentials.in_cluster(environ)
    account.endpoint = credentials.Endpoint(server.host)
    return account


async def tokens(server, account: credentials.Account, between=lambda: None) -> list[str | None]:
    """What two requests prove themselves with; ``between`` them something happens."""
    server.handler = lambda _: web.json_response({})
    async with Client(account, name="tester") as api:
        await api.get(POD, "ns", "a")
        between()
        await api.get(POD, "ns", "a")
    return [request.headers.get("Authorization") for request in server.asked]


async def test_the_folder_that_the_node_names(environ, tmp_path):
    account = credentials.in_cluster(environ)
    assert account.endpoint == credentials.Endpoint("https://10.0.0.1:443", ca_file=str(tmp_path / "ca.crt"))
    assert await account.header() == "Bearer first"
    assert credentials.pod_namespace(environ) == "models"
    assert credentials.pod_namespace(environ | {"POD_NAMESPACE": "other"}) == "other"
    assert credentials.account_folder({}) == credentials.WELL_KNOWN_FOLDER


def test_an_ipv6_host_and_a_port(environ):
    more = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert credentials.in_cluster(environ | more).endpoint.url == "https://[fd00::1]:6443"


async def test_the_next_request_takes_a_rotated_token(server, environ, tmp_path, monkeypatch):
    monkeypatch.setattr(credentials, "RELOAD_SECONDS", 0.0)
    account = in_pod(server, environ)
    found = await tokens(server, account, lambda: replace(tmp_path / "token", "second"))
    assert found == ["Bearer first", "Bearer second"]


async def test_a_token_is_not_read_for_every_request(server, environ, tmp_path):
    account = in_pod(server, environ)
    found = await tokens(server, account, lambda: replace(tmp_path / "token", "second"))
    assert found == ["Bearer first", "Bearer first"]


@pytest.mark.parametrize("breaking", [Path.unlink, lambda path: path.write_text("")])
async def test_a_token_that_cannot_be_read_again_is_used_on(server, environ, tmp_path, monkeypatch, caplog, breaking):
    monkeypatch.setattr(credentials, "RELOAD_SECONDS", 0.0)
    account = in_pod(server, environ)
    found = await tokens(server, account, lambda: breaking(tmp_path / "token"))
    assert found == ["Bearer first", "Bearer first"]
    assert "could not be renewed" in caplog.text


async def test_a_revoked_token_is_read_again_at_once(server, environ, tmp_path):
    """A request that it was refused for is sent again, once, with another token if there is one."""
    account = in_pod(server, environ)
    replace(tmp_path / "token", "second")
    valid = {"Bearer second"}
    server.handler = lambda request: web.json_response(
        {}, status=200 if request.headers["Authorization"] in valid else 401
    )
    async with Client(account, name="tester") as api:
        await api.get(POD, "ns", "a")
        valid.clear()
        with pytest.raises(ApiForbiddenError):  # and no third one
            await api.get(POD, "ns", "a")
    found = [request.headers.get("Authorization") for request in server.asked]
    assert found == ["Bearer first", "Bearer second", "Bearer second"]


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_what_is_missing_is_named(environ, tmp_path, missing):
    (tmp_path / missing).unlink()
    with pytest.raises(NotFoundError, match=missing):
        credentials.in_cluster(environ)


def test_outside_a_pod(environ):
    del environ["KUBERNETES_SERVICE_HOST"]
    with pytest.raises(NotFoundError, match="runs in no pod"):
        credentials.in_cluster(environ)


def test_an_empty_token(environ, tmp_path):
    (tmp_path / "token").write_text("")
    with pytest.raises(InvalidInputError, match="is empty"):
        credentials.in_cluster(environ)


def kubeconfig(path: Path, user: dict, **cluster: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("one", "two")],
        "clusters": [
            {"name": name, "cluster": {"server": f"http://{name}.test:1"} | cluster} for name in ("one", "two")
        ],
        "users": [{"name": "me", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def test_a_context_of_a_kubeconfig(tmp_path):
    path = kubeconfig(tmp_path / "config", {"token": "fixed"}, **{"proxy-url": "http://proxy.test:3128"})
    assert (await credentials.from_kubeconfig(path)).endpoint.url == "http://one.test:1"
    chosen = await credentials.load(path, "two")
    assert (chosen.endpoint.url, chosen.endpoint.proxy) == ("http://two.test:1", "http://proxy.test:3128")


async def test_kubeconfigs_that_cannot_be_used(tmp_path):
    with pytest.raises(NotFoundError, match="there is no kubeconfig"):
        await credentials.from_kubeconfig(tmp_path / "none")
    with pytest.raises(InvalidInputError, match=r"no usable kubeconfig: .*three"):
        await credentials.from_kubeconfig(kubeconfig(tmp_path / "config", {}), "three")
    broken = tmp_path / "broken"
    broken.write_text("clusters: [")
    with pytest.raises(InvalidInputError, match="no usable kubeconfig"):
        await credentials.from_kubeconfig(broken)


@pytest.mark.parametrize("listed", ["{0}/one:{0}/two", ""])
async def test_no_kubeconfig_where_one_is_looked_for(tmp_path, monkeypatch, caplog, listed):
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", listed.format(tmp_path))
    with pytest.raises(NotFoundError, match=r"there is no kubeconfig (.*one:.*two|\(KUBECONFIG is empty\)); name one"):
        await credentials.from_kubeconfig(context="any")
    assert "Config not found" not in caplog.text, "what the library says of it"


async def test_the_first_kubeconfig_of_a_list_may_be_missing(tmp_path, monkeypatch):
    listed = f"{tmp_path}/none:{kubeconfig(tmp_path / 'config', {'token': 'fixed'})}"
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", listed)
    assert (await credentials.from_kubeconfig()).endpoint.url == "http://one.test:1"


async def test_a_token_file_of_a_kubeconfig_rotates(server, tmp_path, monkeypatch):
    monkeypatch.setattr(credentials, "RENEW_SECONDS", 0.0)
    token = tmp_path / "token"
    token.write_text("first")
    path = kubeconfig(tmp_path / "config", {"tokenFile": str(token)}, server=server.host)
    account = await credentials.from_kubeconfig(path)
    found = await tokens(server, account, lambda: replace(token, "second"))
    assert found == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(("expires", "called"), [("2001-01-01T00:00:00Z", 3), ("2999-01-01T00:00:00Z", 1)])
async def test_a_plugin_is_called_when_its_credential_expires(server, tmp_path, monkeypatch, expires, called):
    monkeypatch.setattr(credentials, "RENEW_SECONDS", 0.0)
    calls = tmp_path / "calls"
    version = "client.authentication.k8s.io/v1"
    status = {"token": "$(wc -l < calls)", "expirationTimestamp": expires}
    credential = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\ncd {tmp_path}\necho called >> calls\ncat <<END\n{credential}\nEND\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": version, "command": str(plugin), "interactiveMode": "Never"}}
    account = await credentials.from_kubeconfig(kubeconfig(tmp_path / "config", user, server=server.host))
    found = await tokens(server, account)
    assert found == [f"Bearer {min(number, called)}" for number in (2, 3)]
    assert len(calls.read_text().splitlines()) == called


async def test_a_plugin_is_called_when_its_credential_was_revoked(server, tmp_path):
    calls, version = tmp_path / "calls", "client.authentication.k8s.io/v1"
    status = {"token": "$(wc -l < calls)", "expirationTimestamp": "2999-01-01T00:00:00Z"}
    credential = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\ncd {tmp_path}\necho called >> calls\ncat <<END\n{credential}\nEND\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": version, "command": str(plugin), "interactiveMode": "Never"}}
    account = await credentials.from_kubeconfig(kubeconfig(tmp_path / "config", user, server=server.host))
    server.handler = lambda request: web.json_response(
        {}, status=401 if request.headers["Authorization"] == "Bearer 1" else 200
    )
    async with Client(account, name="tester") as api:
        await api.get(POD, "ns", "a")
    assert [request.headers.get("Authorization") for request in server.asked] == ["Bearer 1", "Bearer 2"]
    assert len(calls.read_text().splitlines()) == 2


@pytest.mark.parametrize("how", ["files", "plugin"])
async def test_a_client_certificate_rotates(server, tmp_path, how):
    """The connection on which it was refused goes with it; the next one shows the new certificate."""
    authority = Authority(tmp_path)
    authority.issue("server", "api", hosts=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    issued = tmp_path / "credential"
    version = "client.authentication.k8s.io/v1"

    def issue(name: str) -> None:
        authority.issue("me", name)
        files = {"clientCertificateData": "me.crt", "clientKeyData": "me.key"}
        status = {key: (tmp_path / file).read_text() for key, file in files.items()}
        issued.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))

    user: dict = {"client-certificate": str(tmp_path / "me.crt"), "client-key": str(tmp_path / "me.key")}
    if how == "plugin":
        command = {"command": "cat", "args": [str(issued)]}
        user = {"exec": {"apiVersion": version, "interactiveMode": "Never"} | command}
    valid = {"first"}
    seen = []

    def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        ((name,),) = request.transport.get_extra_info("peercert")["subject"]
        seen.append(name[1])
        return web.json_response({}, status=200 if name[1] in valid else 401)

    server.handler = answer
    issue("first")
    async with serving(server, context) as address:
        there = {"server": f"https://{address}", "certificate-authority": str(authority.certificate)}
        account = await credentials.from_kubeconfig(kubeconfig(tmp_path / "config", user, **there))
        async with Client(account, name="tester") as api:
            await api.get(POD, "ns", "a")
            issue("second")
            await api.get(POD, "ns", "a")
            valid = {"second"}
            await api.get(POD, "ns", "a")
    assert seen == ["first", "first", "first", "second"]


async def test_a_certificate_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "me.crt").write_text("none")
    (tmp_path / "me.key").write_text("none")
    user = {"client-certificate": str(tmp_path / "me.crt"), "client-key": str(tmp_path / "me.key")}
    account = await credentials.from_kubeconfig(kubeconfig(tmp_path / "config", user, server="https://one.test:1"))
    with pytest.raises(InvalidInputError, match=r"me\.crt"):
        await credentials.open_session(account, program="tester")


async def test_the_name_that_the_certificate_is_checked_for(server, tmp_path):
    """``tls-server-name``: the address of a tunnel is not in the API server's certificate."""
    authority = Authority(tmp_path)
    authority.issue("server", "api", hosts=["kubernetes.test"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server.handler = lambda _: web.json_response({"reached": True})
    async with serving(server, context) as address:
        there = {"server": f"https://{address}", "certificate-authority": str(authority.certificate)}
        named = kubeconfig(tmp_path / "named", {}, **there, **{"tls-server-name": "kubernetes.test"})
        async with Client(await credentials.from_kubeconfig(named), name="tester") as api:
            assert await api.get(POD, "ns", "a") == {"reached": True}
        unnamed = kubeconfig(tmp_path / "unnamed", {}, **there)
        async with Client(await credentials.from_kubeconfig(unnamed), name="tester") as api:
            with pytest.raises(ApiUnavailableError, match="certificate"):
                await api.get(POD, "ns", "a")
