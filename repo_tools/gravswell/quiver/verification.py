"""Verifying a published version again: its files against the manifest, its answers against the golden ones."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from gravswell.errors import GravswellError, UnavailableError, VerificationError
from gravswell.quiver.composition.opening import opened
from gravswell.quiver.config import parse_config
from gravswell.quiver.disk import TAKES_NO_MORE
from gravswell.quiver.fetching import Progress
from gravswell.quiver.golden import column_scales, compare, load_golden
from gravswell.quiver.layout import CLAIM, version_folder
from gravswell.quiver.manifest import GOLDEN, MANIFEST, MODEL_FILE, VERSION_CONFIG, Manifest
from gravswell.quiver.reader import RepositoryReader


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found to hold. Both zero for an unverified version, of which nothing was recorded."""

    files: int
    """Files whose size and hash are those of the manifest."""
    samples: int
    """Golden batches that were reproduced: by ONNX Runtime, and of a pipeline by its steps or its Python over it."""


def verify_version(reader: RepositoryReader, entry: str, number: int, *, progress: Progress | None = None) -> Verified:
    """Check every hash, and run the golden inputs through ONNX Runtime. VerificationError names what differs.

    Of a pipeline the members are checked and run too; one of Python functions runs their source, in an interpreter of
    its own: like a server, verify only what you trust.

    UnavailableError where the store does not answer, or packages that a pipeline asks for are not installed here.

    The version is fetched into a temporary folder, as an agent would, so the same is checked on every store.
    """
    with tempfile.TemporaryDirectory(prefix="gravswell-verify-") as folder:
        copy = Path(folder) / str(number)
        try:
            manifest = reader.fetch(entry, number, copy, progress=progress)
        except UnavailableError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in TAKES_NO_MORE:
                raise
            raise UnavailableError(
                f"{error}. A version is verified as a copy: let TMPDIR name a folder with room for "
                f"{reader.version(entry, number).size >> 20} MiB"
            ) from error
        if manifest is None:
            return Verified(0, 0)
        where = reader.store.location(version_folder(entry, number))
        _check_extra_files(reader, entry, number, manifest, where)
        try:
            samples = _reproduce(reader, copy, manifest, Path(folder), progress)
        except UnavailableError as error:  # which says nothing of the version
            raise type(error)(f"{where}: {error}") from error
        except GravswellError as error:
            raise VerificationError(f"{where}: {error}") from None
        return Verified(len(manifest.files), samples)


def _check_extra_files(reader: RepositoryReader, entry: str, number: int, manifest: Manifest, where: str) -> None:
    found = {f.path for f in reader.store.walk(version_folder(entry, number))}
    extra = sorted(found - set(manifest.files) - {MANIFEST, CLAIM})  # a writer's, who died once it was published
    if extra:
        raise VerificationError(f"{where} holds {', '.join(extra)}, which was not published: remove it")


def _reproduce(
    reader: RepositoryReader, copy: Path, manifest: Manifest, folder: Path, progress: Progress | None
) -> int:
    main = manifest.main_file
    if main == VERSION_CONFIG and not manifest.members:  # no ensemble either, which has no other file
        main = MODEL_FILE
    for name in (main, GOLDEN, VERSION_CONFIG):
        if name not in manifest.files:
            raise VerificationError(f"the manifest names no {name}: the version was made by something else")
    parse_config((copy / VERSION_CONFIG).read_text(), where=VERSION_CONFIG)
    samples = load_golden(copy / GOLDEN)
    proof = manifest.verification
    scales = column_scales([sample.outputs for sample in samples])
    with opened(reader, manifest, copy, folder, progress) as runner:
        for sample in samples:
            compare(sample.outputs, runner.run(sample.inputs), proof.rtol, proof.atol, scales)
    return len(samples)
