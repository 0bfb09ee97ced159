"""Requests to a control plane from this process: what tests ask again and again costs no kubectl, which is a process.

Kinds are named as for kubectl: by plural, singular, kind or short name; or by ``apiVersion/kind``.
"""

import http.client
import json
import ssl
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import yaml

from gravswell.errors import GravswellError
from gravswell_operator.devcluster import ControlPlane

KIND_SECONDS = 60
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Kind(NamedTuple):
    """What the API server says of a kind."""

    api_version: str
    name: str
    plural: str
    namespaced: bool


class Api:
    """One API server, as its administrator, or as ``user``, on a connection that is kept."""

    def __init__(self, cluster: ControlPlane, *, user: str = "") -> None:
        self._headers = {"Impersonate-User": user} if user else {}
        administrator = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]
        self._address = urlsplit(cluster.server_url).netloc
        self._token = administrator["token"]
        self._tls = ssl.create_default_context(cafile=str(cluster.pki / "ca.crt"))
        self._connection: http.client.HTTPSConnection | None = None
        self._lock = threading.Lock()
        self._kinds: dict[str, Kind] = {}

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An object, without its managed fields; None if it is not there."""
        status, body = self._request("GET", self._path(self.kind(kind), namespace, name))
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        return _plain(_answer(status, body, f"get {kind} {name}"))

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind that have the labels of ``selector``."""
        known = self.kind(kind)
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        status, body = self._request("GET", self._path(known, namespace) + query)
        items = _answer(status, body, f"list {kind}")["items"]
        return [_plain({"apiVersion": known.api_version, "kind": known.name, **item}) for item in items]

    def patch(self, kind: str, namespace: str, name: str, change: dict[str, Any], *, subresource: str = "") -> None:
        """A JSON merge patch."""
        path = self._path(self.kind(kind), namespace, name) + (f"/{subresource}" if subresource else "")
        status, body = self._request("PATCH", path, json.dumps(change), "application/merge-patch+json")
        _answer(status, body, f"patch {kind} {name}")

    def apply(self, namespace: str, body: dict[str, Any]) -> None:
        """Server-side, and whatever others say of its fields."""
        name = body["metadata"]["name"]
        path = self._path(self.kind(f"{body['apiVersion']}/{body['kind']}"), namespace, name)
        path += "?fieldManager=test&force=true"
        status, answer = self._request("PATCH", path, json.dumps(body), "application/apply-patch+yaml")
        _answer(status, answer, f"apply {body['kind']} {name}")

    def admit(self, namespace: str, body: dict[str, Any], *, strict: bool = True) -> dict[str, Any]:
        """What an object would be once it is made, without making it. An unknown field is an error, or is dropped."""
        path = self._path(self.kind(f"{body['apiVersion']}/{body['kind']}"), namespace)
        query = f"?dryRun=All&fieldValidation={'Strict' if strict else 'Ignore'}"
        status, answer = self._request("POST", path + query, json.dumps(body), "application/json")
        return _answer(status, answer, f"make {body['kind']} {body['metadata']['name']}")

    def delete(self, kind: str, namespace: str, name: str = "") -> None:
        """Ask that an object goes, or all of its kind in the namespace; one that is not there has gone."""
        status, body = self._request("DELETE", self._path(self.kind(kind), namespace, name))
        if status != http.HTTPStatus.NOT_FOUND:
            _answer(status, body, f"delete {kind} {name}")

    def kind(self, name: str) -> Kind:
        """A kind by any of its names; one whose definition is new is waited for.

        The API server serves it a moment after it has called it established. Raises KeyError for one that never comes.
        """
        end = time.monotonic() + KIND_SECONDS
        known = self._kinds
        while name not in known and time.monotonic() < end:
            known = self._kinds = self._discover()
            if name not in known:
                time.sleep(0.2)
        return known[name]

    def _discover(self) -> dict[str, Kind]:
        found: dict[str, Kind] = {}
        for root in ("/api", "/apis"):  # of two of one name, the core's
            status, body = self._request("GET", root, accept=_DISCOVERY)
            for group in _answer(status, body, root)["items"]:
                version = group["versions"][0]
                prefix = f"{group['metadata']['name']}/" if group.get("metadata", {}).get("name") else ""
                for resource in version.get("resources", ()):  # none, of an API of others that does not answer yet
                    kind = Kind(
                        f"{prefix}{version['version']}",
                        resource["responseKind"]["kind"],
                        resource["resource"],
                        resource["scope"] == "Namespaced",
                    )
                    exact = f"{kind.api_version}/{kind.name}"
                    shorts = resource.get("shortNames", ())
                    names = (exact, kind.plural, resource["singularResource"], kind.name, *shorts)
                    for name in names:
                        found.setdefault(name, kind)
        return found

    @staticmethod
    def _path(kind: Kind, namespace: str, name: str = "") -> str:
        root = "apis" if "/" in kind.api_version else "api"
        place = f"namespaces/{namespace}/" if kind.namespaced and namespace else ""
        return f"/{root}/{kind.api_version}/{place}{kind.plural}" + (f"/{quote(name)}" if name else "")

    def _request(
        self, method: str, path: str, body: str | None = None, content: str = "", accept: str = "application/json"
    ) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept, **self._headers}
        if body is not None:
            headers["Content-Type"] = content
        with self._lock:
            for last in (False, True):
                connection = self._connection or http.client.HTTPSConnection(
                    self._address, context=self._tls, timeout=60
                )
                try:
                    connection.request(method, path, body, headers)
                    answer = connection.getresponse()
                    self._connection = connection
                    return answer.status, answer.read()
                except (http.client.HTTPException, ConnectionError, ssl.SSLEOFError):
                    connection.close()
                    self._connection = None
                    if last:  # the first one may have been closed while nobody asked
                        raise
            raise AssertionError


def _answer(status: int, body: bytes, what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    if status >= http.HTTPStatus.BAD_REQUEST:
        raise GravswellError(f"{what}: {found.get('message', body)}")
    return found


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    body["metadata"].pop("managedFields", None)
    return body
