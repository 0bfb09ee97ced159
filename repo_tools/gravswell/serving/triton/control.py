"""Triton's own HTTP API, as far as starting and stopping a server needs it. Plain http.client: one request, one close.

A connection left open would make Triton wait for it when it stops.
"""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.serving.triton.modelnames import control_path, model_path
from gravswell.serving.triton.reasons import tidy_reason

READY_SECONDS = 5.0
"""Limit of the question that a start repeats until its server answers."""

QUICK_SECONDS = 30.0
"""Limit of other requests that only ask: a machine may be very busy, and a server that never answers is to be told."""


@dataclass(frozen=True)
class ModelStatus:
    """One version in Triton's index. ``state`` is ``READY``, ``UNAVAILABLE``, ``LOADING``, ``UNLOADING`` or empty."""

    name: str
    version: int | None
    state: str
    reason: str


class ControlAPI:
    """The API at ``address`` (``host:port``); ``headers`` carry the key of a server whose control APIs are closed."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self._address = address
        self._headers = dict(headers) | {"Connection": "close"}

    def server_id(self) -> str:
        """The ``--id`` of the server that answers."""
        return str(self._call("GET", "/v2", timeout=READY_SECONDS)["name"])

    def index(self) -> list[ModelStatus]:
        """Every model that Triton has seen, a line for each of its versions."""
        return [
            ModelStatus(
                name=line["name"],
                version=int(line["version"]) if line.get("version") else None,
                state=line.get("state", ""),
                reason=tidy_reason(line.get("reason", "")),
            )
            for line in self._call("POST", "/v2/repository/index")
        ]

    def metadata(self, model: str) -> dict[str, Any]:
        """Versions, inputs and outputs of a model that is ready."""
        found: dict[str, Any] = self._call("GET", model_path(model))
        return found

    def statistics(self, model: str, version: int) -> dict[str, Any]:
        """What Triton has counted of a version since it was loaded: requests, runs, and the time in each stage."""
        (found,) = self._call("GET", f"{model_path(model, str(version))}/stats")["model_stats"]
        return dict(found)

    def load(self, model: str, config: str | None, timeout: float) -> None:
        """Load a model, with ``config`` (JSON) in place of the repository's when it is given."""
        body = {"parameters": {"config": config}} if config is not None else {}
        self._call("POST", f"{control_path(model)}/load", body, timeout)

    def unload(self, model: str, timeout: float) -> None:
        """Unload a model; requests under way are finished."""
        self._call("POST", f"{control_path(model)}/unload", {}, timeout)

    def _call(self, method: str, path: str, body: Any = None, timeout: float = QUICK_SECONDS) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, self._headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"Triton at {self._address} does not answer {path}: {error}") from error
        finally:
            connection.close()
        answer = json.loads(content) if content else {}
        if response.status != http.HTTPStatus.OK:
            raise InvalidInputError(f"Triton refused {path}: {tidy_reason(answer.get('error', str(response.status)))}")
        return answer
