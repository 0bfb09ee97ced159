"""From a published version to a variant of it: fetched, converted, measured, proved, and published as any version."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.exporters import Built, InputSpec, files, graph
from gravswell.quiver.exporters.base import Inputs, Outputs, as_arrays
from gravswell.quiver.exporters.proof import Proof, Runner, open_session, prove, run
from gravswell.quiver.exporters.sampling import BATCH_SIZES, given_batches, is_batched, rows_of, with_rows
from gravswell.quiver.fetching import Progress
from gravswell.quiver.golden import bounds, load_golden, save_golden
from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import GOLDEN, MODEL_FILE, Manifest, VariantError, VariantRecord
from gravswell.quiver.publication import Publication
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import Store
from gravswell.quiver.variants.convert import Kind, convert, float32_only, shaped
from gravswell.quiver.variants.measure import judge, measure, seconds_of
from gravswell.quiver.variants.rounding import rounding_session
from gravswell.targets import DEFAULT_TARGET, target_of

MAX_ERRORS: Mapping[Kind, float] = {"fp16": 0.01, "int8": 0.1}
"""By how much an output may differ by default, as a share of its largest magnitude."""

CALIBRATION_ROWS = 256
"""Most rows of one calibration run: all values between the layers are held in memory."""


_CAMEL = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class MeasuredError(VariantError):
    """What the manifest records of one output."""

    model_config = _CAMEL


class Quantized(BaseModel):
    """A variant that was published. ``seconds`` are of one run in ONNX Runtime on this machine's CPU."""

    model_config = _CAMEL

    entry: str
    version: int
    location: str
    """Where its ``model.onnx`` is."""
    kind: str
    method: str
    parent: int
    """The version that it was made from."""
    max_error: float
    rows: int
    """Rows that were compared."""
    errors: dict[str, MeasuredError]
    bytes: int
    """Of the graph with its weights."""
    parent_bytes: int
    seconds: float
    parent_seconds: float
    batch_rows: int
    """Rows of the batch that was timed."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """Batches with the answers that are wanted: the framework's own, or where there are none, the parent's graph's."""

    inputs: list[Inputs]
    expected: list[Outputs]

    def reference(self, batch: Inputs) -> Outputs:
        return next(e for i, e in zip(self.inputs, self.expected, strict=True) if i is batch)

    def __add__(self, other: "_Compared") -> "_Compared":
        return _Compared(self.inputs + other.inputs, self.expected + other.expected)

    @property
    def rows(self) -> int:
        return sum(map(rows_of, self.inputs))


def quantize(
    store: Store,
    entry: str,
    kind: Kind,
    number: int,
    *,
    calibration: Sequence[Mapping[str, Any]] = (),
    max_error: float | None = None,
    min_agreement: float | None = None,
    stage: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Quantized:
    """Publish version ``number`` of ``entry`` as ``kind``. See ``Entry.quantize``."""
    bound = _checked(kind, calibration, max_error, min_agreement)
    reader = RepositoryReader(store)
    with store.staging() as folder, refusals_told(folder), tempfile.TemporaryDirectory(prefix="gravswell-") as name:
        stage(f"fetching {entry}/{number}")
        parent = Path(name) / str(number)
        manifest = reader.fetch(entry, number, parent, progress=progress)
        if manifest is None:
            raise InvalidInputError(
                f"{entry}/{number} is unverified, so there is nothing to hold a variant to: export it with gravswell, "
                f"or import its repository"
            )
        if manifest.members:
            members = ", ".join(f"{m.model}/{m.version}" for m in manifest.members)
            raise InvalidInputError(
                f"{entry}/{number} is a pipeline, and holds no weights: quantize its members ({members}), and publish "
                f"the pipeline again"
            )
        if manifest.verification.variant is not None:
            made = manifest.verification.variant
            raise InvalidInputError(
                f"{entry}/{number} is {made.kind} already, made of version {made.version}: quantize that one"
            )
        publication = Publication(store, entry, max_batch_size=None, version=None)
        publication.earlier()
        stage("reading golden batches")
        session = open_session(parent / MODEL_FILE)
        proved, calibrating = _batches(parent, manifest, session, calibration)
        compared = proved + calibrating
        stage(f"converting to {kind}")
        converted = convert(kind, parent / MODEL_FILE, compared.inputs if calibration else (), Path(name))
        target = target_of(manifest.target) if manifest.target else DEFAULT_TARGET
        proto, _ = graph.fit_for_serving(converted.proto, target)
        variant = open_session(files.write(proto, folder, converted.source))
        stage("measuring")
        asked = variant
        if kind == "fp16":
            rounded = Path(name) / "rounded"
            rounded.mkdir()
            asked = rounding_session(shaped(parent / MODEL_FILE), proto, rounded, float32_only())
        errors = measure(compared.expected, [run(asked, batch) for batch in compared.inputs])
        judge(errors, max_error=bound, min_agreement=min_agreement, rows=compared.rows)
        record = VariantRecord(
            kind=kind,
            method=converted.method,
            version=number,
            digest=reader.version(entry, number).digest or "",
            max_error=bound,
            rows=compared.rows,
            errors=errors,
        )
        stage("verifying in ONNX Runtime")
        proof = _prove(
            variant, proved, manifest, record, compared, rows_apart=publication.batched(), real=bool(calibration)
        )
        save_golden(folder / GOLDEN, proof.samples)
        timed = max(proved.inputs, key=rows_of)
        seconds, before = seconds_of(lambda: run(variant, timed), lambda: run(session, timed))
        exporter = f"onnxruntime {ort.__version__}, {kind} ({converted.method})"
        built = Built(
            proof,
            graph.default_opset(proto),
            proto.ir_version,
            exporter,
            manifest.framework,
            target.tag,
            fusion=manifest.fusion,
        )
        sizes = _weight(folder), _weight(parent)
        stage("publishing")
        published = publication.publish(folder, built, progress)
    return Quantized(
        entry=entry,
        version=published,
        location=store.location(f"{version_folder(entry, published)}/{MODEL_FILE}"),
        kind=kind,
        method=converted.method,
        parent=number,
        max_error=bound,
        rows=compared.rows,
        errors={output: MeasuredError(**error.model_dump()) for output, error in errors.items()},
        bytes=sizes[0],
        parent_bytes=sizes[1],
        seconds=seconds,
        parent_seconds=before,
        batch_rows=rows_of(timed),
    )


def _checked(kind: str, calibration: Sequence[Any], max_error: float | None, min_agreement: float | None) -> float:
    if kind not in get_args(Kind):
        raise InvalidInputError(f"{kind!r} is no kind of variant: use one of {', '.join(get_args(Kind))}")
    if kind == "fp16" and calibration:
        raise InvalidInputError("fp16 needs no calibration: leave it out")
    bound = MAX_ERRORS[kind] if max_error is None else max_error  # type: ignore[index]  # checked above
    if not 0 < bound < math.inf:
        raise InvalidInputError(f"max_error={bound} is no bound: give a share of the largest value, such as 0.05")
    if min_agreement is not None and not 0 <= min_agreement <= 1:
        raise InvalidInputError(f"min_agreement={min_agreement} is no share: give a number from 0 to 1")
    return bound


def _batches(
    folder: Path, manifest: Manifest, session: ort.InferenceSession, calibration: Sequence[Mapping[str, Any]]
) -> tuple[_Compared, _Compared]:
    """The batches that the variant is proved with, which become its golden ones; and those for calibration.

    The first are the parent's, with the framework's own outputs. But where these were made up and there are real ones
    for calibration, a few of those take their place: random values lie outside the ranges that real ones have.
    """
    samples = load_golden(folder / GOLDEN)
    outputs = samples[0].outputs.keys()
    specs = tuple(map(InputSpec.of, manifest.signature.inputs))
    batched = is_batched(specs)

    def answered(batches: Sequence[Inputs]) -> _Compared:
        answers = [run(session, batch) for batch in batches]
        return _Compared(list(batches), [{k: v for k, v in a.items() if k in outputs} for a in answers])

    given = given_batches(specs, [as_arrays(batch) for batch in calibration]) if calibration else []
    calibrating = answered([piece for batch in given for piece in _pieces(batch, batched=batched)])
    if calibration and manifest.verification.inputs != "given":
        return answered(given[: len(BATCH_SIZES)] if batched else given[:1]), calibrating
    golden = _Compared([s.inputs for s in samples], [s.outputs for s in samples])
    if not batched:
        return golden, calibrating
    present = {rows_of(batch) for batch in golden.inputs}
    others = answered([with_rows(golden.inputs[0], rows) for rows in sorted(set(BATCH_SIZES) - present)])
    return golden + others, calibrating


def _pieces(batch: Inputs, *, batched: bool) -> Iterator[Inputs]:
    if not batched:
        yield batch
        return
    for start in range(0, rows_of(batch), CALIBRATION_ROWS):
        yield {name: array[start : start + CALIBRATION_ROWS] for name, array in batch.items()}


def _prove(
    session: ort.InferenceSession,
    proved: _Compared,
    manifest: Manifest,
    record: VariantRecord,
    compared: _Compared,
    *,
    rows_apart: bool,
    real: bool,
) -> Proof:
    """The gate of every version, at the tolerance that the variant promises.

    Integers and strings beside scores (a label, an index) are the scores' consequence, and may flip where two are close
    to a tie: their agreement is recorded, and they are no golden outputs, which would have to be equal.
    """
    atol = bounds(compared.expected, record.max_error)
    theirs = not real or manifest.verification.inputs == "given"
    held = [{k: v for k, v in e.items() if k in atol} if atol else e for e in proved.expected]
    try:
        proof = prove(
            Runner.of(session),
            proved.inputs,
            _Compared(proved.inputs, held).reference,
            framework=manifest.verification.reference if theirs else f"onnxruntime {ort.__version__}",
            inputs="given" if real else manifest.verification.inputs or "random",
            batched=all(r.dims[:1] == (-1,) for r in manifest.signature.inputs),
            rows_apart=rows_apart,
            rtol=0.0,
            atol=atol,
        )
    except ExportError as error:
        if record.method != "dynamic" or not rows_apart:
            raise
        raise ExportError(
            f"{error}. That is so where int8 takes its ranges from each request: give calibration data "
            f"(--calibration FILE.npz), with which they are fixed"
        ) from None
    return replace(proof, record=proof.record.model_copy(update={"variant": record}))


def _weight(folder: Path) -> int:
    """Bytes of the graph and its data, without the files of ours."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
