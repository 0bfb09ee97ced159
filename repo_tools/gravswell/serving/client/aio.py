"""The client for coroutines."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from math import inf
from numbers import Integral, Real
from types import TracebackType
from typing import Any, Self

import numpy as np

from gravswell.errors import AccessDeniedError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.serving.client.model import Model, described
from gravswell.serving.client.replicas import Endpoint, Replicas, header_lines
from gravswell.serving.client.run import Limits, Run
from gravswell.serving.client.sinks import Part, Raw, Sink, Whole
from gravswell.serving.client.sources import Arrays, Batches, Request, Single, Source
from gravswell.serving.client.stream import Stream
from gravswell.serving.client.wire import Answer, Array, Layouts, Packer
from gravswell.serving.triton.modelnames import model_path

REPORT_SECONDS = 0.1
"""How often ``on_rows`` is called."""

MODEL_SECONDS = 10.0
"""How long what a server told of a model is believed: a new version may take other batches."""


class AsyncClient:
    """Many rows through one Triton or many: requests in flight, answers in the order of the rows.

    >>> async with AsyncClient("triton:8000") as client:
    ...     outputs = await client.infer("my-model", {"x": rows}, batch_size=8)

    :param servers: ``host:port`` of Triton's HTTP (8000 by default), ``http://…`` or ``https://…``; several are
        replicas of each other. A name stands for all the addresses that it has, as a headless Service's does, and is
        resolved again every few seconds: replicas that are added get their share, those that go get no more.
    :param in_flight: requests under way at each replica, at most.
    :param max_bytes: of requests under way and answers that nobody has taken yet; one request goes whatever its size.
    :param request_timeout: seconds for one answer.
    :param retry_for: seconds for which a request is tried again after it first failed because a replica drained,
        restarted or was gone: at the others, and at that one after a pause. 0: once at each replica. What was tried
        again may have been computed twice, so where that matters give 0, and one replica.
    :param source_timeout: seconds for which a call waits for the next batch of its source while all that it gave is
        answered. None: as long as it takes, for a source may rightly be silent for hours, as a queue is at night.
    :param headers: sent with every request, as ``{"Authorization": "Bearer …"}``.
    :param context: TLS as it shall be for ``https://``; the system's authorities by default.

    It connects directly, whatever proxy the environment names. Belongs to one event loop.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        in_flight: int = 32,
        max_bytes: int = 256 << 20,
        request_timeout: float = 60.0,
        retry_for: float = 30.0,
        source_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        names = [servers] if isinstance(servers, str) else list(servers)
        if not names:
            raise InvalidInputError("a client needs a server: host:port of its HTTP, as triton:8000")
        for name, value in (("in_flight", in_flight), ("max_bytes", max_bytes)):
            if not isinstance(value, Integral) or value < 1:
                raise InvalidInputError(f"{name} is a whole number of at least 1, and not {value!r}")
        _check_seconds(request_timeout=request_timeout, retry_for=retry_for)
        if source_timeout is not None and not (isinstance(source_timeout, Real) and source_timeout > 0):
            told = f"source_timeout is a number of seconds above 0, or None, and not {source_timeout!r}"
            raise InvalidInputError(told)
        patience = inf if source_timeout is None else source_timeout
        self._limits = Limits(in_flight, max_bytes, request_timeout, retry_for, patience)
        self._headers = dict(headers or {})
        self._replicas = Replicas(map(Endpoint.parse, names), context)
        for endpoint in self._replicas.endpoints:
            header_lines(endpoint, self._headers)
        self._models: dict[tuple[str, str], tuple[float, Model]] = {}
        self._runs: set[Run] = set()

    @property
    def replicas(self) -> dict[str, int]:
        """How many requests each replica has answered, by ``ip:port``; empty before the first call."""
        return {replica.address: replica.answers for replica in self._replicas.all}

    async def model(self, name: str, version: str | int = "") -> Model:
        """What the server tells of a model, at most a few seconds ago.

        NotFoundError if no replica has it, UnavailableError if none answers.
        """
        key, now = (name, str(version)), asyncio.get_running_loop().time()
        asked, known = self._models.get(key, (-inf, None))
        if known is None or now - asked > MODEL_SECONDS:
            path = model_path(*key)
            what = f"model '{name}'" + (f" version {version}" if version else "")
            metadata = await self._document(path, what)
            known = described(name, metadata, await self.config(name, version))
            self._models[key] = now, known
        return known

    async def config(self, name: str, version: str | int = "") -> dict[str, Any] | None:
        """The config that the server runs a model with, as Triton's JSON.

        None where it tells none: it is a server of the same protocol and no Triton, or the API is closed.
        """
        try:
            return await self._document(f"{model_path(name, str(version))}/config", f"model '{name}'")
        except (InvalidInputError, NotFoundError, AccessDeniedError):
            return None

    async def infer(
        self,
        model: str,
        inputs: Any,
        *,
        batch_size: int | None = None,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        on_rows: Callable[[int], None] | None = None,
    ) -> dict[str, Array]:
        """The outputs of ``model`` for all rows of ``inputs``, by name, row for row.

        ``inputs`` is a mapping of arrays by input name, or one array where the model has one input, with the rows along
        the first axes; or an iterable or asynchronous iterable of such batches, of any sizes (a list of arrays is one
        array, as for NumPy: give ``iter(list)``). They go in requests of ``batch_size`` rows; None: as many as suit the
        model and their size. ``outputs`` names those that are wanted. ``on_rows(n)`` is called a few times a second
        with the number of rows answered since; what it raises ends the call.

        The first request that fails ends the whole, and the message names its rows: :class:`InvalidInputError` for what
        the model does not take, most of it before anything is sent; :class:`NotFoundError` for an unknown model;
        :class:`UnavailableError` where no replica answered in time, or where a source stalled (``source_timeout``): it
        names the row that did not come.
        """
        if _is_batches(inputs):
            parts = []
            answers = self.stream(model, inputs, batch_size=batch_size, version=version, outputs=outputs)
            async with aclosing(answers):
                async for part in answers:
                    parts.append(part)
                    if on_rows:
                        on_rows(part.stop - part.start)
            return _joined(parts, model)
        known = await self.model(model, version)
        known.check_outputs(outputs)
        arrays, rows = known.rows(inputs)
        if not rows:
            raise InvalidInputError(f"there are no rows to send to model '{model}'")
        size = known.batch_size(batch_size, sum(array.nbytes for array in arrays.values()) // rows)
        if known.rows_fixed and rows % size:
            raise InvalidInputError(f"model '{model}' takes exactly {size} rows a request, and {rows} is no multiple")
        source = Arrays(arrays, rows, size, Packer(known.datatypes(), outputs))
        sink = Whole(rows, model)
        run = self._infers(source, sink, model, version)
        try:
            await _finished(run, on_rows)
        finally:
            run.close()
        return sink.outputs

    async def stream(
        self,
        model: str,
        source: Any,
        *,
        batch_size: int | None = None,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        max_wait: float = 1.0,
    ) -> AsyncGenerator[Part, None]:
        """The answers to a source, part by part in the order of its rows, as they come.

        ``source`` is as in :meth:`infer`; a plain iterable runs in a thread of its own, so it may wait, up to
        ``source_timeout``. Rows that have waited ``max_wait`` seconds for others to fill a request are sent without
        them. The source is read only as far as requests are under way or about to be, and a loop body that is slow
        holds it back.

        Errors as of :meth:`infer`, and what the source raises; the parts whose turn it was by then come before. Leaving
        the loop early ends everything (:func:`contextlib.aclosing` does that at once), and so does an error: an
        asynchronous source is cancelled and closed, and a thread ends when its source gives the next batch, or ends.
        """
        arrived = asyncio.Event()
        opened = await self.open_stream(
            model, source, arrived.set, batch_size=batch_size, version=version, outputs=outputs, max_wait=max_wait
        )
        try:
            while (parts := opened.take()) is not None:
                for part in parts:
                    yield part
                if not parts:
                    await arrived.wait()
                arrived.clear()
        finally:
            opened.close()

    async def open_stream(
        self,
        model: str,
        source: Any,
        arrived: Callable[[], None],
        *,
        batch_size: int | None,
        version: str | int,
        outputs: Sequence[str] | None,
        max_wait: float,
    ) -> "Stream":
        """What :meth:`stream` is made of, for whoever takes the parts, in any thread: ``arrived`` is called, in the
        loop, when there may be some."""
        known = await self.model(model, version)
        known.check_outputs(outputs)
        _check_seconds(max_wait=max_wait)
        if not _is_batches(source):
            source = [source]
        stream = Stream(lambda: 2 * self._limits.in_flight * max(1, len(self._replicas)), model, arrived)
        packer, patience = Packer(known.datatypes(), outputs), self._limits.source_timeout
        batches = Batches(stream.inbox, known, batch_size, packer, max_wait=max_wait, timeout=patience)
        stream.begin(self._infers(batches, stream.sink, model, version), source)
        return stream

    async def request(
        self,
        model: str,
        inputs: Any,
        *,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
    ) -> Answer:
        """One request with exactly these tensors, whose first axes need not be rows; errors as of :meth:`infer`."""
        known = await self.model(model, version)
        known.check_outputs(outputs)
        head, payload = Packer(known.datatypes(), outputs).pack(known.tensors(inputs))
        run = self._infers(Single(Request(0, 0, 0, head, payload)), sink := Raw(), model, version)
        try:
            await run.done
        finally:
            run.close()
        assert sink.answer is not None
        return sink.answer

    async def close(self) -> None:
        """End what is under way, whose callers are told so, and close the connections."""
        for run in list(self._runs):
            run.close(UnavailableError("the client was closed while it asked"))
        self._models.clear()
        await self._replicas.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Inside

    def _infers(self, source: Source, sink: Sink, model: str, version: str | int) -> Run:
        path = model_path(model, str(version))
        return self._begun(source, sink, f"model '{model}'", f"{path}/infer", Layouts().read)

    async def _document(self, path: str, what: str) -> dict[str, Any]:
        await self._replicas.ensure_resolved(asyncio.get_running_loop().time())
        documents: list[dict[str, Any]] = []

        def read(body: bytes, _: int | None) -> Answer:
            documents.append(_parsed(body))
            return Answer({}, "")

        source = Single(Request(0, 0, 0, b"\r\n", []))
        run = self._begun(source, Raw(), what, path, read, method="GET", wait_for_model=False)
        try:
            await run.done
        finally:
            run.close()
        return documents[0]

    def _begun(
        self,
        source: Source,
        sink: Sink,
        what: str,
        path: str,
        read: Callable[[bytes, int | None], Answer],
        *,
        method: str = "POST",
        wait_for_model: bool = True,
    ) -> Run:
        run = Run(
            self._replicas,
            source,
            sink,
            what=what,
            prolog=lambda endpoint: self._prolog(endpoint, f"{method} {endpoint.prefix}{path}"),
            read=read,
            limits=self._limits,
            wait_for_model=wait_for_model,
        )
        self._runs.add(run)
        run.done.add_done_callback(lambda _: self._runs.discard(run))
        run.start()
        return run

    def _prolog(self, endpoint: Endpoint, what: str) -> bytes:
        return f"{what} HTTP/1.1\r\n".encode() + header_lines(endpoint, self._headers)


async def _finished(run: Run, on_rows: Callable[[int], None] | None) -> None:
    if on_rows is None:
        await run.done
        return
    told = 0
    while True:
        await asyncio.wait({run.done}, timeout=REPORT_SECONDS)
        if run.rows_done > told:
            told, new = run.rows_done, run.rows_done - told
            on_rows(new)
        if run.done.done():
            run.done.result()
            return


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError("what it sent is no JSON object")  # noqa: TRY004
    return document


def _check_seconds(**values: float) -> None:
    for name, seconds in values.items():
        if not isinstance(seconds, Real) or not seconds >= 0:
            raise InvalidInputError(f"{name} is a number of seconds, and not {seconds!r}")


def _is_batches(value: Any) -> bool:
    """Whether it is a source of batches, of either kind: no mapping and nothing that NumPy would make one array of."""
    if isinstance(value, AsyncIterable):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and isinstance(value[0], Mapping)
    one = isinstance(value, Mapping | str | bytes) or hasattr(value, "__array__")
    return isinstance(value, Iterable) and not one


def _joined(parts: list[Part], model: str) -> dict[str, Array]:
    if not parts:
        raise InvalidInputError(f"there are no rows to send to model '{model}'")
    try:
        return {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
    except ValueError as error:
        told = f"the outputs of model '{model}' make no one array ({error}); stream() gives each part as it is"
        raise InvalidInputError(told) from None
