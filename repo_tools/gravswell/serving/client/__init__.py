"""Many rows through one Triton or many: requests in flight, answers in the order of the rows.

Its law: plain HTTP/1.1 with binary tensors, a connection for each request under way, in one asyncio loop. That was
chosen by measurement (``benchmarks/client_rate.py`` repeats it): at eight rows a request processor time is the limit,
and gRPC takes several times as much of the client's, also with requests built by hand. uvloop saves less than a tenth
of it, and a server with fewer HTTP threads nothing. With 8 or 16 in flight there come up to a third fewer rows/s than
with the 32 of the default, and with 64 no more; an input in shared memory is as fast as one sent (0.98 to 1.05).

One direction: ``sync`` on ``aio``; that on ``stream`` and ``run``, which moves requests; that on ``sources``, ``sinks``
and ``replicas``; and these on ``model``, ``wire`` and ``connection``. Beside them is ``prepared``, for who measures a
server with one request over and over.
"""

from gravswell.serving.client.aio import AsyncClient
from gravswell.serving.client.connection import Connection
from gravswell.serving.client.model import Model, Tensor
from gravswell.serving.client.prepared import connected, packed
from gravswell.serving.client.sinks import Part
from gravswell.serving.client.sync import Client
from gravswell.serving.client.wire import Answer

__all__ = ["Answer", "AsyncClient", "Client", "Connection", "Model", "Part", "Tensor", "connected", "packed"]
