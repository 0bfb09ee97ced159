"""moto, one request at a time: ``python serial_moto.py -H HOST -p PORT``.

It checks a condition, and writes, in two steps with others in between; the real S3 does both in one. Under load two
conditional writes of one object then both win, and an update is lost.
"""

import threading
from typing import Any

from moto import server

_turn = threading.Lock()


class _Serial(server.DomainDispatcherApplication):  # type: ignore[misc]
    def __call__(self, environ: Any, start_response: Any) -> Any:
        with _turn:
            return super().__call__(environ, start_response)


server.DomainDispatcherApplication = _Serial
server.main()
