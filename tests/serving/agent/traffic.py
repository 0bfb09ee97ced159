"""A client that never pauses: what every request got, and from which version."""

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from .versions import WIDTH

PROGRAM = Path(__file__).with_name("asking_on.py")


class Traffic:
    """Requests to one model, one after the other, over gRPC and over HTTP. A context manager.

    ``answers`` holds the factor that each answer shows, which tells the version, ``by`` the same for each protocol, and
    ``errors`` what went wrong. It begins once the model is ready by both.

    Each protocol is asked by a process of its own: where tests work in a network of their own, the threads that gRPC
    keeps for a whole process would stay there, and no client of that process would reach anything else afterwards.
    """

    def __init__(self, model: str, *, http_address: str, grpc_address: str) -> None:
        self.answers: list[float] = []
        self.by: dict[str, list[float]] = {"grpc": [], "http": []}
        self.errors: list[str] = []
        self._last: dict[str, float] = {}
        """By protocol."""
        self._model = model
        self._addresses = {"grpc": grpc_address, "http": http_address}
        self._stack = ExitStack()
        self._ending = False

    @property
    def last(self) -> float | None:
        """The factor of the latest answer of both; None where they differ: the one's is of before, or still to come."""
        factors = list(self._last.values())
        return factors[0] if len(factors) == len(self._addresses) and len(set(factors)) == 1 else None

    def __enter__(self) -> Self:
        with self._stack:
            clients = {protocol: self._start(protocol, address) for protocol, address in self._addresses.items()}
            for protocol, client in clients.items():
                assert client.stdin
                assert client.stdout
                said = client.stdout.readline()  # the program bounds its wait
                assert said == "ready\n", f"the {protocol} client ended with {client.wait(60)}"
                reader = threading.Thread(target=self._read, args=(protocol, client))
                self._stack.callback(reader.join, 60.0)
                self._stack.callback(client.stdin.close)
                reader.start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._stack.close()

    def _start(self, protocol: str, address: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), protocol, address, self._model, str(WIDTH)]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.enter_context(client)
        self._stack.callback(client.kill)  # where it has not ended by itself
        return client

    def _read(self, protocol: str, client: subprocess.Popen[str]) -> None:
        for line in client.stdout or ():
            said = json.loads(line)
            if isinstance(said, str):
                self.errors.append(f"{protocol}: {said}")
            else:
                self._last[protocol] = said
                self.answers.append(said)
                self.by[protocol].append(said)
        if not self._ending:
            self.errors.append(f"the {protocol} client ended with {client.wait(60)}")
