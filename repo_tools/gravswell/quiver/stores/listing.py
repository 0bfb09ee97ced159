"""One flat listing of a bucket, asked as if it were a tree of folders.

Three things that are objects are hidden here: folder markers (empty objects that tools make to show a folder),
tombstones, and what lies beside a tombstone. A tombstone is an *empty* ``.manifest.json``. It takes a version out of
every reader's sight in one write, and out of reach of a writer that would still complete it; its number counts as taken.
"""

from collections.abc import Iterable

from gravswell.errors import NotFoundError
from gravswell.quiver.layout import check_key
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.stores.base import Children, FileInfo
from gravswell.quiver.stores.objects import ObjectInfo


class Listing:
    """The objects under ``folder`` of a repository, with keys relative to the repository's root. A :class:`View`."""

    def __init__(self, objects: Iterable[ObjectInfo], *, url: str) -> None:
        self._url = url
        known = {o.key: o for o in objects}
        folders = {parent for key in known for parent in _parents(key)}
        self._buried = {
            key.removesuffix(f"/{MANIFEST}")
            for key, info in known.items()
            if info.size == 0 and key.endswith(f"/{MANIFEST}")
        }
        self.objects = {
            key: info
            for key, info in sorted(known.items())
            if not (info.size == 0 and (key.endswith("/") or key in folders))
        }
        """Every object but folder markers, by key, tombstones and all."""

    @property
    def visible(self) -> dict[str, ObjectInfo]:
        """What readers see."""
        return {k: o for k, o in self.objects.items() if not any(p in self._buried for p in _parents(k))}

    def children(self, folder: str = "") -> Children:
        """See :meth:`~gravswell.quiver.stores.base.Store.children`."""
        start = f"{check_key(folder)}/" if folder else ""
        folders: set[str] = set()
        files: list[str] = []
        for key in self.visible:
            if key.startswith(start):
                name, slash, _ = key[len(start) :].partition("/")
                if slash:
                    folders.add(name)
                else:
                    files.append(name)
        for buried in self._buried:
            parent, _, name = buried.rpartition("/")
            if parent == folder:
                folders.add(name)
        if folder and not folders and not files:
            raise NotFoundError(f"{self._url}/{folder} is not there")
        return Children(tuple(sorted(folders)), tuple(sorted(files)))

    def walk(self, folder: str) -> list[FileInfo]:
        """See :meth:`~gravswell.quiver.stores.base.Store.walk`."""
        start = f"{check_key(folder)}/" if folder else ""
        found = [
            FileInfo(key[len(start) :], info.size, info.modified)
            for key, info in self.visible.items()
            if key.startswith(start)
        ]
        if not found:
            raise NotFoundError(f"{self._url}/{folder} is not there")
        return found


def _parents(key: str) -> Iterable[str]:
    end = key.find("/")
    while end != -1:
        yield key[:end]
        end = key.find("/", end + 1)
