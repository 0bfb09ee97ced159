"""What changed from one version to another: for clients, in the config, in the graph, in the weights, in the answers.

Its law: both versions are fetched as an agent would, every hash checked; what is published is never changed.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gravswell.errors import UnsupportedError, VerificationError
from gravswell.quiver.comparison.clients import Change, client_signature, config_changes, signature_changes
from gravswell.quiver.comparison.fields import FieldDifference, differing_fields
from gravswell.quiver.config import parse_config
from gravswell.quiver.fetching import Progress
from gravswell.quiver.golden import Array, load_golden
from gravswell.quiver.layout import config_key
from gravswell.quiver.manifest import GOLDEN, MANIFEST, MODEL_FILE, Manifest, MemberRecord, Signature
from gravswell.quiver.reader import RepositoryReader

if TYPE_CHECKING:
    from gravswell.quiver.exporters.graph_diff import GraphDifference, WeightDifference

__all__ = [
    "Change",
    "Comparison",
    "FieldDifference",
    "MemberDifference",
    "OutputDifference",
    "Side",
    "compare_versions",
]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions."""

    reader: RepositoryReader
    entry: str
    number: int

    def __str__(self) -> str:
        return f"{self.entry}/{self.number}"


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """One golden output. ``max_abs`` is over all samples with equal inputs; None where shapes or kinds differ."""

    name: str
    samples: int
    max_abs: float | None


@dataclass(frozen=True, slots=True)
class MemberDifference:
    """One member of a pipeline, by its alias: ``denoise/3``; None where one of the two does not call it."""

    alias: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that differs from the old version to the new one."""

    old: str
    new: str
    digests: tuple[str | None, str | None]
    clients: tuple[Change, ...]
    """What a client can see, with whether it breaks one."""
    config: tuple[FieldDifference, ...]
    graph: "GraphDifference"
    weights: tuple["WeightDifference", ...]
    files: Mapping[str, tuple[int | None, int | None]]
    """Bytes of each file whose size differs, or that only one of them has."""
    outputs: tuple[OutputDifference, ...]
    """The recorded outputs for equal inputs; empty where there are none to compare."""
    members: tuple[MemberDifference, ...] = ()
    """Of pipelines: members that are another version, or another model. What changed in these, they tell themselves."""

    @property
    def breaking(self) -> bool:
        """Whether a client that goes on as before breaks."""
        return any(change.breaking for change in self.clients)

    @property
    def identical(self) -> bool:
        """Whether they are one and the same version, byte for byte."""
        return self.digests[0] is not None and self.digests[0] == self.digests[1]


def compare_versions(old: Side, new: Side, *, progress: Progress | None = None) -> Comparison:
    """Compare two versions of ONNX entries, or of pipelines, of one repository or of two.

    NotFoundError for a version that is not there, VerificationError for a damaged one, UnsupportedError for one that
    is no ONNX model and no pipeline.
    """
    from gravswell.quiver.exporters.graph_diff import compare_graphs, no_difference  # noqa: PLC0415 - imports ONNX

    with tempfile.TemporaryDirectory(prefix="gravswell-diff-") as temporary:
        a, b = _fetched(old, Path(temporary, "old"), progress), _fetched(new, Path(temporary, "new"), progress)
        if a.model is None and b.model is None:
            graph, weights = no_difference()
        elif a.model is None or b.model is None:
            one, other = (old, new) if a.model is None else (new, old)
            raise UnsupportedError(f"{one} is a pipeline, and {other} is a model: compare versions of one kind")
        else:
            graph, weights = compare_graphs(a.folder / a.model, b.folder / b.model)
        changes = [
            *signature_changes(a.signature, b.signature, optional=b.optional),
            *config_changes(a.config, b.config),
        ]
        sizes = [{p.relative_to(x.folder).as_posix(): p.stat().st_size for p in _files(x.folder)} for x in (a, b)]
        return Comparison(
            old=str(old),
            new=str(new),
            digests=(a.digest, b.digest),
            clients=tuple(changes),
            config=tuple(differing_fields(a.config, b.config)),
            graph=graph,
            weights=tuple(weights),
            files={
                path: (sizes[0].get(path), sizes[1].get(path))
                for path in sorted(sizes[0].keys() | sizes[1].keys())
                if path != MANIFEST and sizes[0].get(path) != sizes[1].get(path)
            },
            outputs=tuple(_outputs(a.folder / GOLDEN, b.folder / GOLDEN)),
            members=tuple(_members(a.members, b.members)),
        )


@dataclass(frozen=True, slots=True)
class _Fetched:
    folder: Path
    model: str | None
    """The graph's file; None for a pipeline, which has members."""
    config: Any
    signature: Signature
    optional: frozenset[str]
    digest: str | None
    members: tuple[MemberRecord, ...]


def _fetched(side: Side, folder: Path, progress: Progress | None) -> _Fetched:
    reader = side.reader
    digest = reader.version(side.entry, side.number).digest
    manifest: Manifest | None = reader.fetch(side.entry, side.number, folder, progress=progress)
    text = reader.version_config(side.entry, side.number) or ""
    config = parse_config(text, where=reader.store.location(config_key(side.entry)))
    members = () if manifest is None else manifest.members
    model = None if members else config.default_model_filename or MODEL_FILE
    if model is not None and not (folder / model).is_file():
        raise UnsupportedError(f"{side} of {reader.store.location('')} holds no {model}: ONNX models are compared")
    stated = None if manifest is None else manifest.signature
    optional = frozenset(tensor.name for tensor in config.input if tensor.optional)
    if stated is None and model is not None and not (config.input and config.output):
        stated, own = _of_graph(folder / model, str(side))
        optional |= own
    return _Fetched(folder, model, config, client_signature(config, stated), optional, digest, members)


def _members(old: Sequence[MemberRecord], new: Sequence[MemberRecord]) -> Iterator[MemberDifference]:
    before, after = ({member.alias: member for member in members} for members in (old, new))
    for alias in dict.fromkeys((*before, *after)):
        a, b = before.get(alias), after.get(alias)
        if a is None or b is None or a.digest != b.digest:
            yield MemberDifference(
                alias, None if a is None else f"{a.model}/{a.version}", None if b is None else f"{b.model}/{b.version}"
            )


def _of_graph(path: Path, what: str) -> tuple[Signature, frozenset[str]]:
    from gravswell.quiver.exporters.inspection import inspect_graph  # noqa: PLC0415 - imports ONNX

    facts = inspect_graph(path)
    if facts.error is not None:
        raise VerificationError(f"{what}: {facts.error}")
    return Signature(inputs=facts.inputs, outputs=facts.outputs), facts.optional


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _outputs(old: Path, new: Path) -> list[OutputDifference]:
    """The largest difference of each output that both recorded, over the samples whose inputs are equal."""
    if not old.is_file() or not new.is_file():
        return []
    pairs = [
        (x.outputs, y.outputs)
        for x, y in zip(load_golden(old), load_golden(new), strict=False)
        if x.inputs.keys() == y.inputs.keys() and all(_equal(x.inputs[name], y.inputs[name]) for name in x.inputs)
    ]
    names = dict.fromkeys(name for a, b in pairs for name in a if name in b)
    return [OutputDifference(name, len(pairs), _apart([(a[name], b[name]) for a, b in pairs])) for name in names]


def _equal(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _apart(pairs: list[tuple[Array, Array]]) -> float | None:
    largest = 0.0
    for a, b in pairs:
        if _equal(a, b):
            continue
        if a.shape != b.shape or a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
            return None
        with np.errstate(invalid="ignore"):
            apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
        apart = np.where(np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64)), 0.0, apart)
        if np.isnan(apart).any():
            return None
        largest = max(largest, float(apart.max(initial=0.0)))
    return largest
