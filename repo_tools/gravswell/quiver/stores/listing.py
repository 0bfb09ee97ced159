"""One flat listing of a bucket, asked as if it were a tree of folders.

Three things that are objects are hidden here: folder markers (empty objects that tools make to show a folder),
tombstones, and what lies beside a tombstone. A tombstone is an *empty* ``.manifest.json`` in the folder of a version,
``ENTRY/NUMBER``. It takes a version out of every reader's sight in one write, and out of reach of a writer that would
still complete it; its number stays taken.
"""

import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

from gravswell.errors import NotFoundError
from gravswell.quiver.layout import check_key, parse_version
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.stores.base import Children, FileInfo
from gravswell.quiver.stores.objects import ObjectInfo, parents


class Listing:
    """The objects under ``folder`` of a repository, with keys relative to the repository's root. A :class:`View`."""

    def __init__(self, objects: Iterable[ObjectInfo], *, url: str) -> None:
        self._url = url
        known = {o.key: o for o in objects}
        folders = {parent for key in known for parent in parents(key)}
        self.buried = {
            key.removesuffix(f"/{MANIFEST}") for key, info in known.items() if info.size == 0 and _is_mark(key)
        }
        """Folders of versions that have a tombstone."""
        self.objects = {
            key: info
            for key, info in sorted(known.items())
            if not (info.size == 0 and (key.endswith("/") or key in folders))
        }
        """Every object but folder markers, by key, tombstones and all."""
        self.visible = {k: o for k, o in self.objects.items() if self.buried.isdisjoint(parents(k))}
        """What readers see of them."""
        self._keys = list(self.visible)
        self._tree: dict[str, tuple[set[str], list[str]]] = defaultdict(lambda: (set(), []))
        for key in self._keys:
            parent = ""
            for folder in parents(key):
                self._tree[parent][0].add(folder.rpartition("/")[2])
                parent = folder
            self._tree[parent][1].append(key.rpartition("/")[2])
        for folder in self.buried:  # their numbers stay taken as long as there is an entry
            parent, _, name = folder.rpartition("/")
            if parent in self._tree:
                self._tree[parent][0].add(name)

    def children(self, folder: str = "") -> Children:
        """See :meth:`~gravswell.quiver.stores.base.Store.children`."""
        if folder and check_key(folder) not in self._tree:
            raise NotFoundError(f"{self._url}/{folder} is not there")
        folders, files = self._tree.get(folder, (set(), []))
        return Children(tuple(sorted(folders)), tuple(sorted(files)))

    def walk(self, folder: str) -> list[FileInfo]:
        """See :meth:`~gravswell.quiver.stores.base.Store.walk`."""
        start = f"{check_key(folder)}/" if folder else ""
        found: list[FileInfo] = []
        for key in itertools.islice(self._keys, bisect_left(self._keys, start), None):
            if not key.startswith(start):
                break
            info = self.visible[key]
            found.append(FileInfo(key[len(start) :], info.size, info.modified))
        if folder and not found:
            raise NotFoundError(f"{self._url}/{folder} is not there")
        return found

    def has_file(self, key: str) -> bool:
        """See :meth:`~gravswell.quiver.stores.base.Store.has_file`."""
        return check_key(key) in self.visible


def _is_mark(key: str) -> bool:
    """Whether ``key`` is a version's manifest. In a bucket that others use too, the same name elsewhere is theirs."""
    parts = key.split("/")
    return len(parts) == 3 and parts[2] == MANIFEST and parse_version(parts[1]) is not None
