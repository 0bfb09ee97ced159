"""From a model to its parts: exported if need be, cut, written, and shown to answer as the whole does."""

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from gravswell.errors import InvalidInputError, VerificationError
from gravswell.partitions.assembly import Part, tensor
from gravswell.partitions.chain import Chain
from gravswell.partitions.layered import Balance, layered
from gravswell.partitions.network import Network
from gravswell.partitions.partitioned import PARTS_FOLDER, Partition
from gravswell.partitions.records import PLAN_FILE, By, Combined, PartRecord, Plan, encoded, manifest_of
from gravswell.partitions.sharded import sharded
from gravswell.quiver.disk import refusals_told, sha256_of
from gravswell.quiver.entry import Entry
from gravswell.quiver.exporters import Stage, build, files
from gravswell.quiver.exporters.proof import largest
from gravswell.quiver.exporters.sampling import rows_of
from gravswell.quiver.exporters.weights import LEAST
from gravswell.quiver.golden import Sample, column_scales, compare, load_golden
from gravswell.quiver.layout import check_name
from gravswell.quiver.manifest import GOLDEN, MODEL_FILE, OutputError
from gravswell.quiver.request import Samples, Shapes, export_request
from gravswell.quiver.version import Version

_WHOLE, _PUBLISHED = "whole", "published"
"""Folders: the whole model with its golden batches, a version that is exported anew."""


def partition(
    model: Any,
    ranks: int,
    by: By = "layer",
    *,
    name: str | None = None,
    whole: Sequence[str] = (),
    balance: Balance = "weights",
    input_shapes: Shapes | None = None,
    output_names: Sequence[str] | None = None,
    input_types: Mapping[str, str] | None = None,
    sample_inputs: Samples | None = None,
    opset: int | None = None,
    target: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    on_stage: Stage = lambda _: None,
) -> Partition:
    """Cut ``model`` into parts for ``ranks`` processes, and prove that together they answer as it does.

    ``by="layer"``: consecutive slices, of about the same weight; each rank takes what earlier ones made.
    ``by="column"``: each rank has some output columns of every MatMul, Gemm and Conv; its answers are concatenated.
    ``by="row"``: each rank has some input rows of them, and the answers are summed; where layers lead into another by
    what keeps their columns apart, such as element-wise operators or the heads of an attention, they are split by their
    columns, which are the other's rows, so that one sum serves all of them. Whatever else there is works on whole
    tensors, where the answers are put together: so a network of several layers has several *stages*.

    :param model: anything that ``entry.export_version`` takes; an entry, in its newest version; or a version of one.
    :param name: what the parts are called after; the entry's or the file's name by default.
    :param whole: by column or row: names of layers, or patterns such as ``"head*"``, that are not to be split.
    :param balance: by layer: what the slices have the same of, bytes of ``"weights"`` or ``"time"`` on this CPU.
    :param sample_inputs: batches to prove it with, as for ``export_version``, as are the parameters that follow.
    :raises InvalidInputError: more ranks than layers; a layer that the ranks do not divide; nothing to split. It names
        the layer, the numbers and the way out.
    :raises VerificationError: the parts do not answer as the model does.
    :raises ExportError: the model cannot become ONNX, or holds what cannot be taken apart.
    """
    _check(ranks, by, whole, balance)
    held = tempfile.TemporaryDirectory(prefix="gravswell-partition-")
    source, folder = Path(held.name) / _WHOLE, Path(held.name) / PARTS_FOLDER
    try:
        folder.mkdir()
        with refusals_told(folder):
            model, called, samples = _fetched(model, source, wanted=sample_inputs is None)
            called = _checked_name(name or called)
            if not samples:
                source.mkdir(exist_ok=True)
                request = export_request(
                    model,
                    input_shapes,
                    output_names,
                    stated=None,
                    types=dict(input_types or {}),
                    samples=sample_inputs,
                    opset=opset,
                    target=target,
                )
                samples = build(request, source, input_types=input_types, stage=on_stage).proof.samples
            on_stage("reading the graph")
            batches = [sample.inputs for sample in samples]
            network = Network(source / MODEL_FILE, batches)
            on_stage(f"cutting {called} for {ranks} ranks by {by}")
            combined: list[Combined] = []
            if by == "layer":
                parts = layered(network, ranks, balance, batches)
            else:
                parts, combined = sharded(network, ranks, by, whole)
            on_stage("writing the parts")
            plan = _written(network, parts, combined, folder, name=called, by=by)
            on_stage("verifying in ONNX Runtime")
            errors = _proved(Chain(plan, folder), samples, rtol=rtol, atol=atol)
    except BaseException:
        held.cleanup()
        raise
    return Partition(plan, held, samples, errors, (rtol, atol))


def _check(ranks: int, by: str, whole: Sequence[str], balance: str) -> None:
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise InvalidInputError(f"ranks={ranks!r}: use a whole number from 1 on")
    if by not in get_args(By):
        raise InvalidInputError(f"by={by!r} is no way to partition: use one of {', '.join(get_args(By))}")
    if balance not in get_args(Balance):
        raise InvalidInputError(f"balance={balance!r}: use one of {', '.join(get_args(Balance))}")
    if isinstance(whole, str):
        raise InvalidInputError(f"whole must be a sequence of names: [{whole!r}]")
    if by == "layer" and whole:
        raise InvalidInputError("by='layer' leaves every layer whole: leave whole out")
    if by != "layer" and balance != "weights":
        raise InvalidInputError(f"by={by!r} gives every rank the same of each layer: leave balance out")


def _fetched(model: Any, source: Path, *, wanted: bool) -> tuple[Any, str, list[Sample]]:
    """What to export, its name, and the golden batches of a published version, which is in ``source`` then.

    ``wanted``: whether its own batches will do.
    """
    if isinstance(model, Entry):
        model = model.version()
    if not isinstance(model, Version):
        path = isinstance(model, str | os.PathLike)
        return model, Path(model).stem if path else type(model).__name__.lower(), []
    published = source.with_name(_PUBLISHED) if not wanted or model.digest is None else source
    model.fetch(published)
    if published is source:
        return None, model.entry, load_golden(source / GOLDEN)
    return published / MODEL_FILE, model.entry, []


def _written(
    network: Network, parts: Sequence[Part], combined: Sequence[Combined], folder: Path, *, name: str, by: By
) -> Plan:
    """Every part in a folder of its own, and the documents beside them."""
    records = []
    for part in parts:
        home = folder / part.name
        home.mkdir()
        path = files.write(part.proto, home, network.source)
        records.append(
            PartRecord(
                name=part.name,
                stage=part.stage,
                rank=part.rank,
                file=f"{part.name}/{MODEL_FILE}",
                digest=sha256_of(path),
                inputs=part.inputs,
                outputs=part.outputs,
                weight_bytes=files.size_of(files.load(path), path),
                layers=part.layers,
            )
        )
    taken = {one.name for part in parts for one in part.inputs}
    ranks = len({part.rank for part in parts} - {None})
    sizes = {weight: network.bytes_of(weight) for weight in network.weights}
    copies = Counter(weight for part in parts for weight in part.held)
    plan = Plan(
        model=name,
        by=by,
        ranks=ranks,
        stages=max(part.stage for part in parts),
        inputs=tuple(tensor(name, network.types[name]) for name in network.inputs if name in taken),
        outputs=tuple(tensor(name, network.types[name]) for name in network.outputs),
        parts=tuple(records),
        combined=tuple(combined),
        weight_bytes=sum(sizes.values()),
        replicated={weight: sizes[weight] for weight, count in copies.items() if count > 1 and sizes[weight] >= LEAST},
    )
    (folder / PLAN_FILE).write_bytes(encoded(plan))
    for rank in range(ranks):
        (folder / f"rank-{rank}.json").write_bytes(encoded(manifest_of(plan, rank)))
    return plan


def _checked_name(name: str) -> str:
    try:
        return check_name(name)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}. The parts are entries under that name: give another one (--name)") from None


def _proved(
    chain: Chain, samples: Sequence[Sample], *, rtol: float | None, atol: float | None
) -> dict[str, OutputError]:
    """The largest difference of each output over all batches; VerificationError where one is too large."""
    errors: dict[str, OutputError] = {}
    scales = column_scales([sample.outputs for sample in samples])
    for sample in samples:
        try:
            found = compare(sample.outputs, chain(sample.inputs), rtol, atol, scales)
        except VerificationError as error:
            raise VerificationError(
                f"the parts do not answer as the whole at a batch of {rows_of(sample.inputs)}: {error}; nothing was "
                f"written. Sums in another order round otherwise: allow more (rtol, atol), or use by='layer', which "
                f"keeps the order"
            ) from None
        errors = largest(errors, found)
    return errors
