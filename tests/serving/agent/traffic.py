"""A client that never pauses: what every request got, and from which version."""

import threading
from types import TracebackType
from typing import Self

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http

from .versions import WIDTH


class Traffic:
    """Requests to one model, one after the other, over gRPC and over HTTP, each in a thread. A context manager.

    ``answers`` holds the factor that each answer shows, which tells the version, ``by`` the same for each protocol, and
    ``errors`` what went wrong.
    """

    def __init__(self, model: str, *, http_address: str, grpc_address: str) -> None:
        self.answers: list[float] = []
        self.by: dict[str, list[float]] = {"grpc": [], "http": []}
        self.errors: list[str] = []
        self._last: dict[object, float] = {}
        """By protocol."""
        self._model = model
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=("grpc", grpc, grpc_address)),
            threading.Thread(target=self._run, args=("http", http, http_address)),
        ]

    @property
    def last(self) -> float | None:
        """The factor of the latest answer of both; None where they differ: the one's is of before, or still to come."""
        factors = list(self._last.values())
        return factors[0] if len(factors) == len(self._threads) and len(set(factors)) == 1 else None

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, protocol: object, address: str) -> None:
        x = np.full((2, WIDTH), 7.0, np.float32)
        client = protocol.InferenceServerClient(address)  # type: ignore[attr-defined]
        try:
            while not self._stop.wait(0.005):
                tensor = protocol.InferInput("x", list(x.shape), "FP32")  # type: ignore[attr-defined]
                tensor.set_data_from_numpy(x)
                try:
                    y = client.infer(self._model, [tensor]).as_numpy("y")
                except Exception as error:  # noqa: BLE001  whatever it is, it is a failed request
                    self.errors.append(f"{type(error).__name__}: {error}")
                else:
                    self._last[protocol] = float(y[0, 0] / x[0, 0])
                    self.answers.append(self._last[protocol])
                    self.by[name].append(self._last[protocol])
        finally:
            client.close()
