"""An entry's configuration as it lies in the repository, and what it would say had its last writer not died."""

import logging
from dataclasses import dataclass

from gravswell.errors import GravswellError, InvalidInputError, NotFoundError
from gravswell.quiver.composition.config import is_pipeline, take_parts
from gravswell.quiver.config import ConfigText
from gravswell.quiver.layout import config_key
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import Update

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """An entry's configuration, what its file says, and the etag to replace that by; both None without a file."""

    config: ConfigText
    text: str | None
    etag: str | None


def stored_config(reader: RepositoryReader, entry: str) -> StoredConfig:
    """The entry's configuration, healed from its newest version where that is needed.

    A missing file, or one that states no inputs although there are versions, is what a first export leaves that died
    between its version and the entry's configuration. NotFoundError if the entry is not there,
    InvalidInputError where the file is no configuration.
    """
    where = reader.store.location(config_key(entry))
    try:
        content = reader.store.read(config_key(entry))
    except NotFoundError:
        reader.numbers(entry)  # which names what is missing when the whole entry is
        text = etag = None
        config = ConfigText("", where=where)
        config.message.name = entry
    else:
        text, etag = content.data.decode(errors="replace"), content.etag
        try:
            config = ConfigText(text, where=where)
        except InvalidInputError as error:
            if _published(reader, entry) is None:
                raise
            raise InvalidInputError(f"{error}, or remove the file: the newest version's stands in its place") from None
    if not config.message.input and not config.message.HasField("ensemble_scheduling"):
        config = _healed(reader, entry, config, whole=text is None)
    return StoredConfig(config, text, etag)


def write_healed(reader: RepositoryReader, entry: str) -> None:
    """Let the entry's file say what :func:`stored_config` heals it with, before the versions go that it is known from.

    Nothing keeps a version from going: what cannot be read or written now is told in the log.
    """
    try:
        stored = stored_config(reader, entry)
        text = stored.config.render()
        if stored.etag is not None and text != stored.text:
            reader.store.write(config_key(entry), text.encode(), Update(stored.etag))
    except GravswellError as error:
        _log.warning("the configuration of %s may not say which tensors it had: %s", entry, error)


def _healed(reader: RepositoryReader, entry: str, config: ConfigText, *, whole: bool) -> ConfigText:
    published = _published(reader, entry)
    if published is None:
        return config
    own = ConfigText(published, where=config.where)
    if whole:
        return own
    config.message.input.extend(own.message.input)
    del config.message.output[:]
    config.message.output.extend(own.message.output)
    config.message.max_batch_size = own.message.max_batch_size
    if is_pipeline(own.message):
        take_parts(config.message, own.message)
    return config


def _published(reader: RepositoryReader, entry: str) -> str | None:
    """The configuration that the entry's newest verified version was published with."""
    state, _ = reader.state(entry)
    infos = (info for info in reader.versions(entry) if info.digest is not None and state.holds(info.number))
    return next((reader.version_config(entry, info.number) for info in infos), None)
