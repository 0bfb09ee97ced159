"""A bucket that is looked at again and again: one listing for each look, and of its small files only what changed."""

from collections.abc import Iterator

from gravswell.errors import AccessDeniedError, UnavailableError
from gravswell.quiver.stores.base import Content, Store, View
from gravswell.quiver.stores.bucket import BucketStore
from gravswell.quiver.stores.listing import Listing


def looked_at(store: Store, known: dict[str, Content]) -> Store:
    """``store`` as it is at this moment, for readers; a folder is itself, as a disk is asked when it is asked.

    A bucket is listed now, and never again by what is returned. ``known`` is what earlier looks at it read, by key:
    what the listing shows to be the same still is not read again, what it shows otherwise is forgotten. A bucket that
    stops answering costs one wait: what is read after that fails at once.
    """
    return _Look(store, known) if isinstance(store, BucketStore) else store


class _Look(BucketStore):
    def __init__(self, store: BucketStore, known: dict[str, Content]) -> None:
        super().__init__(store.objects, store.prefix.rstrip("/"))
        self._seen = super().view()
        self._known = known
        self._away: UnavailableError | None = None
        for key in [key for key, content in known.items() if not self._is_same(key, content)]:
            del known[key]

    def view(self, folder: str = "") -> Listing:  # noqa: ARG002 - all of it is here
        """See :meth:`Store.view`."""
        return self._seen

    def parts(self) -> Iterator[View]:
        """See :meth:`Store.parts`."""
        yield self._seen

    def has_file(self, key: str) -> bool:
        """See :meth:`Store.has_file`."""
        return self._seen.has_file(key)

    def read(self, key: str) -> Content:
        """See :meth:`Store.read`."""
        content = self._known.get(key)
        if content is None:
            content = self._known[key] = self._asked_for(key)
        return content

    def _asked_for(self, key: str) -> Content:
        if self._away is not None:
            raise self._away
        try:
            return super().read(key)
        except AccessDeniedError:
            raise
        except UnavailableError as error:
            self._away = error
            raise

    def _is_same(self, key: str, content: Content) -> bool:
        listed = self._seen.objects.get(key)
        # Azure quotes an etag where it sends the object, and does not where it lists it.
        return listed is not None and listed.etag.strip('"') == content.etag.strip('"')
