"""A version as users hold it: a number that knows where it is."""

from datetime import datetime
from pathlib import Path

from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import MODEL_FILE, Manifest
from gravswell.quiver.reader import RepositoryReader, VersionInfo


class Version(int):
    """A version's number, which knows where it is: use it as an int, or ask for more."""

    info: VersionInfo
    _reader: RepositoryReader
    _entry: str

    @classmethod
    def of(cls, reader: RepositoryReader, entry: str, info: VersionInfo) -> "Version":
        """The version of ``entry`` that ``info`` describes."""
        version = cls(info.number)
        version.info = info
        version._reader = reader
        version._entry = entry
        return version

    @property
    def entry(self) -> str:
        """The name of its entry."""
        return self._entry

    @property
    def repository_url(self) -> str:
        """The URL of the repository that it is in."""
        return self._reader.url

    @property
    def location(self) -> str:
        """Where the file is that a server runs: ``model.onnx``, or what a pipeline has in place of it."""
        file = MODEL_FILE if self.digest is None else self.manifest.main_file
        return self._reader.store.location(f"{version_folder(self._entry, int(self))}/{file}")

    @property
    def digest(self) -> str | None:
        """sha256 of the manifest; None for a version that something else wrote."""
        return self.info.digest

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self.info.size

    @property
    def created(self) -> datetime | None:
        """When it was made."""
        return self.info.created

    def fetch(self, destination: Path) -> Manifest | None:
        """Copy it into the folder ``destination``, which must not exist yet, every hash checked on the way.

        None for a version that something else wrote. As :meth:`RepositoryReader.fetch` raises.
        """
        return self._reader.fetch(self._entry, int(self), destination)

    @property
    def manifest(self) -> Manifest:
        """All that was recorded when it was made. NotFoundError for a version that something else wrote."""
        return self._reader.manifest(self._entry, int(self))[0]
