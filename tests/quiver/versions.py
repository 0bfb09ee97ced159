"""Published versions of a few bytes, made by the store itself: for what does not look into a model."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from gravswell.quiver.manifest import MANIFEST, MODEL_FILE, FileRecord, Manifest, Signature, VerificationRecord
from gravswell.quiver.stores import Store


def put_versions(store: Store, entry: str, numbers: Iterable[int], *, created: datetime | None = None) -> None:
    """Publish these versions of an entry that is there."""
    for number in numbers:
        model = b"model %d" % number
        manifest = Manifest(
            model=entry,
            version=number,
            created=created or datetime.now(UTC),
            files={MODEL_FILE: FileRecord(sha256=hashlib.sha256(model).hexdigest(), size=len(model))},
            signature=Signature(inputs=(), outputs=()),
            opset=18,
            ir_version=9,
            exporter="test",
            framework="test",
            gravswell="0",
            verification=VerificationRecord(reference="test", samples=0),
        )
        with store.staging() as stage:
            (stage / MODEL_FILE).write_bytes(model)
            (stage / MANIFEST).write_bytes(manifest.to_bytes())
            store.publish(stage, f"{entry}/{number}")
