"""Published versions of a few bytes, made by the store itself: for what does not look into a model."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from gravswell.quiver.manifest import MANIFEST, MODEL_FILE, FileRecord, Manifest, Signature, VerificationRecord
from gravswell.quiver.stores import Store


def put_versions(
    store: Store,
    entry: str,
    numbers: Iterable[int],
    *,
    created: datetime | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Publish these versions of an entry that is there, with the files ``beside`` the model."""
    for number in numbers:
        files = {MODEL_FILE: b"model %d" % number, **(beside or {})}
        manifest = Manifest(
            model=entry,
            version=number,
            created=created or datetime.now(UTC),
            files={
                path: FileRecord(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
                for path, data in files.items()
            },
            signature=Signature(inputs=(), outputs=()),
            opset=18,
            ir_version=9,
            exporter="test",
            framework="test",
            gravswell="0",
            verification=VerificationRecord(reference="test", samples=0),
        )
        with store.staging() as stage:
            for path, data in files.items():
                (stage / path).write_bytes(data)
            (stage / MANIFEST).write_bytes(manifest.to_bytes())
            store.publish(stage, f"{entry}/{number}")
