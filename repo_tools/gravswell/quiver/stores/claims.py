"""``N/.claim.json``: whose upload version N is, and that it goes on.

A claim is created if absent, which takes the number, and replaced every :data:`BEAT` while its writer lives. Whether
one is dead is judged by the store's own clock alone: its last modification against that of an object just written. Two
writers, or a writer and a cleaner, never need clocks that agree.
"""

import logging
import os
import socket
import threading
import uuid
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gravswell.errors import ConflictError, GravswellError, NotFoundError
from gravswell.quiver.stores.base import Create, Update, Upload
from gravswell.quiver.stores.objects import GONE, Objects

BEAT = timedelta(seconds=20)
"""How often a living writer renews its claim."""

EXPIRY = timedelta(minutes=10)
"""The age at which a claim is dead: many beats, as a laptop sleeps and a network fails for a while."""

_log = logging.getLogger(__name__)


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True)

    schema_: Literal["gravswell.dev/claim/v1"] = Field(default="gravswell.dev/claim/v1", alias="schema")
    writer: str
    """Host, process and a number of its own, for a person who wonders."""
    label: str = ""
    """What the writer says of its version to other writers."""
    beat: int
    """Counts the renewals, so that no two contents, and on S3 no two etags, are the same."""
    copy_of: str = ""
    """The digest of what is copied here, where it is a copy: another writer of the same bytes may go on with it."""
    abandoned: bool = False
    """Set by a cleaner that took the claim over, or by the writer of a copy that ended before its time."""

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(by_alias=True) + "\n").encode()


class Claim:
    """The claim at ``key``, taken and renewed in the background while the with-statement lasts. ConflictError if taken.

    Leaving does not remove it: who holds it decides what is left behind (:meth:`drop`, :meth:`leave`).

    With ``copy_of``, a claim of an earlier copy of that digest is taken over, at once where that one left it, and else
    when it is not renewed for more than a beat. Both write the same bytes, so nothing depends on which of them does.
    """

    def __init__(self, objects: Objects, key: str, label: str = "", copy_of: str = "") -> None:
        self._objects, self._key, self._label, self.copy_of = objects, key, label, copy_of
        self.resumed = False
        """Whether files of an earlier copy may lie beside it."""
        self._writer = _writer()
        self._beat = 0
        self._etag = ""
        self._lost: ConflictError | None = None
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_always, name="gravswell-claim", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._etag = self._objects.put(self._key, self._content(), Create())
        except ConflictError:
            if not self.copy_of:
                raise
            try:
                self._etag = self._resume()
            except NotFoundError:
                where = self._objects.at(self._key)
                raise ConflictError(f"{where} ended this moment, as another copy did: repeat") from None
            self.resumed = True
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def confirm(self) -> None:
        """Renew it now. ConflictError if somebody has taken it for dead meanwhile."""
        with self._renewing:
            if self._lost is None:
                try:
                    self._renew()
                except ConflictError as error:
                    self._lost = error
            if self._lost is not None:
                raise ConflictError(
                    f"{self._objects.at(self._key)} was taken over: this upload stood still for too long, or the entry "
                    f"was removed meanwhile"
                ) from self._lost

    def stands(self) -> bool:
        """Whether it is still there. It is nobody's to remove but its writer's until the version is hidden or gone."""
        found = upload_of(self._objects, self._key, 0)
        return found is not None and found.writer == self._writer

    def drop(self) -> None:
        """Remove it, unless somebody has taken it over: then it is theirs, and says so of files that are theirs."""
        self._ended.set()
        with self._renewing, suppress(ConflictError):
            try:
                self._objects.delete_exact(self._key, self._etag)
            except ConflictError:
                self._objects.delete_exact(self._key, self._own_etag())

    def leave(self) -> None:
        """Leave it for the next copy of the same to go on with. ConflictError if one does already."""
        self._ended.set()
        with self._renewing:
            self._renew(abandoned=True)

    def _renew(self, *, abandoned: bool = False) -> None:
        self._beat += 1
        content = self._content(abandoned=abandoned)
        try:
            self._etag = self._objects.put(self._key, content, Update(self._etag))
        except ConflictError:
            self._etag = self._objects.put(self._key, content, Update(self._own_etag()))

    def _own_etag(self) -> str:
        """The etag, if it is ours: one of our renewals may have arrived though the store did not say so.

        ConflictError if it is not.
        """
        gone = ConflictError(f"{self._objects.at(self._key)} is another writer's by now, or gone")
        try:
            found = self._objects.get(self._key)
        except NotFoundError:
            raise gone from None
        content = _parsed(found.data)
        if content is None or content.writer != self._writer:
            raise gone
        return found.etag

    def _resume(self) -> str:
        found = self._objects.get(self._key)
        content = _parsed(found.data) or _Content(writer="another program", beat=0)
        busy = ConflictError(f"{self._objects.at(self._key)}: {content.writer} is writing it, or died doing so")
        if content.copy_of != self.copy_of:
            raise busy
        if not content.abandoned:
            self._ended.wait(BEAT.total_seconds() * 1.25)
            if self._objects.get(self._key).etag != found.etag:
                raise busy  # it lives
        self._beat = content.beat + 1
        return self._objects.put(self._key, self._content(), Update(found.etag))

    def _renew_always(self) -> None:
        while not self._ended.wait(BEAT.total_seconds()):
            try:
                self.confirm()
            except ConflictError:
                return  # the upload finds out when it confirms
            except GravswellError as error:  # the store does not answer now; the next beat tries again
                _log.debug("the claim is not renewed: %s", error)

    def _content(self, *, abandoned: bool = False) -> bytes:
        return _Content(
            writer=self._writer, label=self._label, beat=self._beat, copy_of=self.copy_of, abandoned=abandoned
        ).to_bytes()


def upload_of(objects: Objects, key: str, number: int) -> Upload | None:
    """Whose upload the claim at ``key`` is; None if it is gone, or going. One that is not ours has no label."""
    try:
        data = objects.get(key).data
    except NotFoundError:
        return None
    if data.startswith(GONE):
        return None
    content = _parsed(data)
    if content is None:
        return Upload(number, writer="another program", label="")
    return Upload(number, content.writer, content.label)


def is_copy(objects: Objects, key: str) -> bool:
    """Whether the claim at ``key`` is of a copy, which may be gone on with for longer than others live."""
    try:
        content = _parsed(objects.get(key).data)
    except NotFoundError:
        return False
    return content is not None and bool(content.copy_of)


def take_over(objects: Objects, key: str, *, now: datetime) -> str | None:
    """The claim at ``key``, if it is dead: now ours to clear away, under this etag. Its writer cannot confirm it.

    None if its writer lives, or another cleaner was faster. ``now`` is by the store's clock.
    """
    try:
        found = objects.stat(key)
        if now - found.modified < EXPIRY:
            return None
        content = _Content(writer=_writer(), beat=0, abandoned=True).to_bytes()
        return objects.put(key, content, Update(found.etag))
    except (NotFoundError, ConflictError):
        return None


def _writer() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"


def _parsed(data: bytes) -> _Content | None:
    """None for what another program wrote."""
    try:
        return _Content.model_validate_json(data)
    except ValidationError:
        return None
