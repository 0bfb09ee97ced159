"""A published graph once more, as the next version, with the entry's configuration as it is by now.

A version never changes, its configuration neither: this is how an edit of ``config.pbtxt``, by hand or by ``tune``,
reaches servers without a model to export. Graph, golden batches and proof are the version's, each hash checked.
"""

import shutil
from collections.abc import Callable

from gravswell.errors import InvalidInputError
from gravswell.quiver.config import parse_config
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.fetching import Progress
from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import MANIFEST, VERSION_CONFIG
from gravswell.quiver.publication import Publication
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import Store


def republish(
    store: Store,
    entry: str,
    number: int,
    *,
    stage: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> int:
    """Publish version ``number`` of ``entry`` again and return the new one's number. See ``Entry.republish``."""
    from gravswell.quiver.exporters import Built  # noqa: PLC0415 - imports ONNX, here and below
    from gravswell.quiver.exporters.proof import Proof  # noqa: PLC0415

    reader = RepositoryReader(store)
    where = store.location(version_folder(entry, number))
    publication = Publication(store, entry, max_batch_size=None, version=None)
    publication.earlier()
    text = reader.version_config(entry, number) or ""
    served = parse_config(text, where=f"{where}/{VERSION_CONFIG}")
    stored = publication.config()
    config = stored.message
    if stored.render() == text:  # not the messages: fields that only a newer Triton knows are in neither
        raise InvalidInputError(f"{where} has the entry's configuration already: there is nothing to publish")
    if config.max_batch_size > 0 and served.max_batch_size == 0:
        raise InvalidInputError(
            f"{where} was proved for requests as they come, and the entry's max_batch_size is {config.max_batch_size} "
            f"by now, with which a server mixes them: export the model again, which proves that too"
        )
    with store.staging() as folder, refusals_told(folder):
        stage(f"fetching {entry}/{number}")
        fetched = folder / "fetched"
        manifest = reader.fetch(entry, number, fetched, progress=progress)
        if manifest is None:
            raise InvalidInputError(f"{where} is unverified: import its repository, or export the model")
        for path in fetched.iterdir():
            if path.name not in (MANIFEST, VERSION_CONFIG):
                path.rename(folder / path.name)
        shutil.rmtree(fetched)
        proof = Proof(manifest.signature, [], manifest.verification, batchable=served.max_batch_size > 0)
        built = Built(
            proof,
            manifest.opset,
            manifest.ir_version,
            manifest.exporter,
            manifest.framework,
            manifest.target,
            members=manifest.members,
            parts=served if manifest.members else None,
            fusion=manifest.fusion,
        )
        stage("publishing")
        return publication.publish(folder, built, progress)
