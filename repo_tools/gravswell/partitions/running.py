"""What ``gravswell rank`` does: find out where a rank stands, build its models there, compute, tell of the outputs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from gravswell.errors import InvalidInputError, NotFoundError, VerificationError
from gravswell.partitions.rank import Device, Rank, inputs_of
from gravswell.partitions.ranktable import Place, place_of, read_rank_table
from gravswell.partitions.records import PLAN_FILE, RankManifest, read
from gravswell.quiver.disk import sha256_of
from gravswell.quiver.exporters.base import Outputs
from gravswell.quiver.golden import Array

FIRST_VALUES = 10
"""How many values of each output are shown."""

_CAMEL = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class OutputReport(BaseModel):
    """One output: its size in bytes, its number of elements, and its first ten values, or all where it has fewer."""

    model_config = _CAMEL

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    elements: int
    first: tuple[bool | int | float | str, ...]
    """What JSON has no number for is told in words: ``"nan"``, ``"-inf"``."""


class ModelReport(BaseModel):
    """What one model of a rank made."""

    model_config = _CAMEL

    model: str
    outputs: tuple[OutputReport, ...]


class RankReport(BaseModel):
    """What a rank did. Times are in seconds; those of a run are of all its models."""

    model_config = _CAMEL

    rank: int
    ranks: int | None
    """None where nothing says how many there are."""
    server: str | None
    """Which machine the rank table puts it on."""
    device: int
    target: str
    provider: str
    build_seconds: float
    first_seconds: float
    best_seconds: float
    runs: int
    shared_bytes: int
    """Of weights that are held once and would be held again."""
    models: tuple[ModelReport, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a rank is told. None: the manifest says, or else the rank table, or else the default."""

    manifest: Path | None = None
    """``rank-0.json``, or the folder with the manifests of all."""
    models: Sequence[Path] = field(default_factory=tuple)
    """In place of a manifest."""
    rank: int | None = None
    device: int | None = None
    target: str | None = None
    provider: str | None = None
    rank_table: Path | None = None
    share_weights: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rank is among the others, and what it computes with."""

    rank: int
    ranks: int | None
    place: Place | None
    device: Device
    models: Sequence[Path]


def standing(setting: Setting) -> Standing:
    """Find out all that is not said. InvalidInputError names a contradiction, VerificationError a changed file."""
    if bool(setting.models) == (setting.manifest is not None):
        raise InvalidInputError("a rank needs a manifest or models, and not both: --manifest rank-0.json, or --model …")
    manifest, folder = _manifest(setting) if setting.manifest is not None else (None, Path())
    rank = _agreed("rank", setting.rank, manifest.rank if manifest else None, str(setting.manifest)) or 0
    if rank < 0:
        raise InvalidInputError(f"there is no rank {rank}: they are numbered from 0 on")
    places = read_rank_table(setting.rank_table) if setting.rank_table else None
    ranks = manifest.ranks if manifest else len(places) if places else None
    place = None
    if places is not None and setting.rank_table is not None:
        place = place_of(places, rank, setting.rank_table)
        if manifest is not None and len(places) != manifest.ranks:
            raise InvalidInputError(
                f"{setting.rank_table} has {len(places)} ranks, and {manifest.model} was partitioned for "
                f"{manifest.ranks}: use the table of these, or partition it anew (gravswell partition --ranks "
                f"{len(places)})"
            )
    target = setting.target or (manifest.target if manifest else "cpu")
    number = setting.device
    if target != "cpu":  # a table is of accelerators; the processors of a machine are one device
        number = _agreed("device", number, place.device if place else None, f"the place of rank {rank} in the table")
        number = number if number is not None else manifest.device if manifest else None
        number = rank if number is None else number
    device = Device.of(target, setting.provider or (manifest.provider if manifest else None), number or 0)
    models = [_checked(folder / part.file, part.digest) for part in manifest.parts] if manifest else setting.models
    return Standing(rank, ranks, place, device, models)


def run_rank(
    setting: Setting, *, inputs: Mapping[str, Array] | None = None, rows: int = 1, repeat: int = 1
) -> tuple[RankReport, list[Outputs]]:
    """Build what a rank holds, compute ``repeat`` times, and return the report and each model's outputs, in its order.

    :param inputs: arrays by the names of inputs; of a rank with several stages, all that come from outside of it. None:
        ones, in so many ``rows``.
    :raises InvalidInputError: settings that contradict one another or name what is not there; wrong inputs.
    :raises UnsupportedError: a provider that this installation does not have.
    :raises UnavailableError: the device does not take the model.
    """
    if rows < 1 or repeat < 1:
        raise InvalidInputError(f"rows={rows}, repeat={repeat}: use whole numbers from 1 on")
    stands = standing(setting)
    rank = Rank(stands.models, stands.device, share_weights=setting.share_weights)
    batches = [inputs_of(session, inputs, rows) for session in rank.sessions]
    answers, timing = rank.predict(batches, repeat=repeat)
    report = RankReport(
        rank=stands.rank,
        ranks=stands.ranks,
        server=stands.place.server if stands.place else None,
        device=stands.device.number,
        target=stands.device.target,
        provider=stands.device.provider,
        build_seconds=rank.build_seconds,
        first_seconds=timing.first,
        best_seconds=timing.best,
        runs=timing.runs,
        shared_bytes=rank.shared_bytes,
        models=tuple(
            ModelReport(model=str(path), outputs=tuple(_reported(name, array) for name, array in answer.items()))
            for path, answer in zip(stands.models, answers, strict=True)
        ),
    )
    return report, answers


def joined(models: Sequence[str | Path], outputs: Sequence[Outputs]) -> Outputs:
    """The outputs of several models under one name each.

    It is their own where no two models have one alike, as those of a partition. Else it is ``<file>/<name>``, with the
    file's name without its ending; or ``<number>/<name>``, counted from 0 on, where models are in files of one name.
    """
    names = [name for answer in outputs for name in answer]
    if len(set(names)) == len(names):
        return {name: array for answer in outputs for name, array in answer.items()}
    stems = [Path(model).stem for model in models]
    heads = stems if len(set(stems)) == len(stems) else list(map(str, range(len(stems))))
    return {
        f"{head}/{name}": array for head, answer in zip(heads, outputs, strict=True) for name, array in answer.items()
    }


def _manifest(setting: Setting) -> tuple[RankManifest, Path]:
    assert setting.manifest is not None
    path = setting.manifest
    if path.is_dir():
        if setting.rank is None:
            raise InvalidInputError(f"{path} has the manifests of all ranks: say which this one is (--rank-id)")
        known = sorted(found.name for found in path.glob("rank-*.json"))
        path /= f"rank-{setting.rank}.json"
        if not path.is_file():
            raise NotFoundError(
                f"there is no rank {setting.rank} in {path.parent}; manifests there: {', '.join(known) or 'none'}"
            )
    manifest, plan = read(RankManifest, path), path.with_name(PLAN_FILE)
    if plan.is_file() and sha256_of(plan) != manifest.plan_digest:
        raise VerificationError(f"{path} is of another partition than {plan}: copy the whole folder, or partition anew")
    return manifest, path.parent


def _agreed(what: str, given: int | None, stated: int | None, where: str) -> int | None:
    if given is not None and stated is not None and given != stated:
        raise InvalidInputError(f"{what} {given} is not {what} {stated}, which {where} says: leave out one of both")
    return stated if given is None else given


def _checked(path: Path, digest: str) -> Path:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}, which the manifest names: copy the folders beside it too")
    if sha256_of(path) != digest:
        raise VerificationError(f"{path} is not the file that the manifest names: it was changed; partition anew")
    return path


def _reported(name: str, array: Any) -> OutputReport:
    array = np.asarray(array)
    return OutputReport(
        name=name,
        dtype="string" if array.dtype.kind in "OSU" else str(array.dtype),
        shape=array.shape,
        bytes=sum(len(str(x).encode()) for x in array.flat) if array.dtype.kind in "OSU" else array.nbytes,
        elements=array.size,
        first=tuple(_plain(value) for value in array.ravel()[:FIRST_VALUES].tolist()),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
