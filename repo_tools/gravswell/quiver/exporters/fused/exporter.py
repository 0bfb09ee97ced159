"""A fusion, exported like any model: its reference are the single models' own answers."""

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gravswell.errors import InvalidInputError
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.exporters import files
from gravswell.quiver.exporters.base import Exported, Exporter, ExportRequest, Inputs, InputSpec, Outputs, class_names
from gravswell.quiver.exporters.fused.batches import batches_of
from gravswell.quiver.exporters.fused.exact import Comparison
from gravswell.quiver.exporters.fused.interface import Interface, interface_of
from gravswell.quiver.exporters.fused.levels import LEAST_OPSET, equalized
from gravswell.quiver.exporters.fused.metadata import METADATA
from gravswell.quiver.exporters.fused.naming import Branch, moved
from gravswell.quiver.exporters.fused.routing import routed
from gravswell.quiver.exporters.fused.sharing import contents, copies, lift_constants, shared
from gravswell.quiver.exporters.fused.singles import Single, singles
from gravswell.quiver.fusion import MODEL_ID, Fusion
from gravswell.quiver.manifest import MODEL_FILE, FusedModel


@dataclass(frozen=True, slots=True)
class _Fused:
    """A fusion that was made and is to the last bit its models' graphs; not yet proved against their frameworks."""

    folder: tempfile.TemporaryDirectory[str]
    path: Path
    interface: Interface
    answers: list[tuple[Inputs, Outputs]]
    count: int
    batching: int
    frameworks: str
    computes_in: np.dtype[Any] | None

    def answer(self, batch: Inputs) -> Outputs:
        """The single models' own answers to one of the batches that it is proved with."""
        return next(outputs for inputs, outputs in self.answers if inputs is batch)


class FusedExporter(Exporter):
    """Exports each model by the exporter of its framework, then all as one graph."""

    name = "fusion of several models (qv.fuse)"

    def claims(self, model: Any) -> bool:
        """See :meth:`Exporter.claims`."""
        return "gravswell.quiver.fusion.Fusion" in class_names(model)

    def opened(self, request: ExportRequest) -> ExportRequest:
        """See :meth:`Exporter.opened`. All the work is done here: nobody else knows what a fusion takes."""
        if request.samples or (request.inputs is not None and not request.inferred):
            raise InvalidInputError(
                "what a fusion takes is known from its models: leave input_shapes and sample_inputs out, and give them "
                "to the models, as the inputs of their ModelInfo"
            )
        if request.output_names is not None and not request.inferred:
            raise InvalidInputError("the outputs of a fusion are its models': give output_names to their ModelInfo")
        if request.target.opset < LEAST_OPSET:
            raise InvalidInputError(
                f"a fusion is in opset {LEAST_OPSET} or newer, and {request.target} takes up to "
                f"{request.target.opset}: name a newer target"
            )
        folder = tempfile.TemporaryDirectory(prefix="gravswell-fusion-", dir=request.folder)
        try:
            with refusals_told(Path(folder.name)):
                return replace(request, model=_fused(request.model, request, folder))
        except BaseException:
            folder.cleanup()
            raise

    def closed(self, request: ExportRequest) -> None:
        """See :meth:`Exporter.closed`."""
        request.model.folder.cleanup()

    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """See :meth:`Exporter.inputs`."""
        fused: _Fused = request.model
        taken = [InputSpec(i.name, i.data_type, i.dims, optional=i.optional) for i in fused.interface.inputs]
        return (InputSpec(MODEL_ID, "TYPE_INT64", (None,)), *taken)

    def own_batches(self, request: ExportRequest) -> list[Inputs] | None:
        """See :meth:`Exporter.own_batches`. Each id alone, and all mixed."""
        return [inputs for inputs, _ in request.model.answers]

    @contextmanager
    def answering(self, request: ExportRequest) -> Iterator[Callable[[Inputs], Any]]:
        """See :meth:`Exporter.answering`."""
        yield request.model.answer

    @contextmanager
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> Iterator[Exported]:
        """See :meth:`Exporter.exporting`."""
        del batches
        fused: _Fused = request.model
        yield Exported(
            proto=files.load(fused.path),
            source=fused.path,
            converted=False,
            exporter=f"gravswell, a fusion of {fused.count} models",
            framework=fused.frameworks,
            reference=fused.answer,
            computes_in=fused.computes_in,
            batching=fused.batching,
        )


def _fused(fusion: Fusion, request: ExportRequest, folder: tempfile.TemporaryDirectory[str]) -> _Fused:
    root = Path(folder.name)
    models, of = singles(fusion, request, root)
    request.stage("fusing")
    protos, level = equalized(models, request.target, request.opset)
    places = [PurePosixPath(model.path.parent.relative_to(root)) for model in models]
    protos = [lift_constants(moved(proto, place)) for proto, place in zip(protos, places, strict=True)]
    source = root / MODEL_FILE  # the data files are named from its folder
    weights = [contents(proto, source) for proto in protos]
    first = copies(models, protos, weights)
    kept = sorted(set(first))
    branches = [Branch(models[k], protos[k], weights[k]) for k in kept]
    table = [kept.index(first[k]) for k in of]
    interface = interface_of([branch.model for branch in branches])
    known = list(_table(fusion, [models[k] for k in of], table))
    if fusion.check is not None:
        fusion.check(known, [taken.record for taken in interface.inputs])
    answers = batches_of([models[k] for k in of], interface)
    rows = [row.model_dump(mode="json") for row in known]

    def written(alone: Collection[int] = ()) -> Path:
        """The fusion, in which these branches share no weights."""
        sharing = [replace(branch, weights={}) if k in alone else branch for k, branch in enumerate(branches)]
        proto = routed(sharing, table, interface, shared([branch.weights for branch in sharing]), level)
        proto.metadata_props.add(key=METADATA, value=json.dumps(rows))
        place = Path(tempfile.mkdtemp(dir=root, prefix="fused-"))
        return files.write(proto, place, source)

    request.stage("comparing with the single models")
    comparison = Comparison(branches, table, [inputs for inputs, _ in answers], request.stage)
    path = written()
    if shared([branch.weights for branch in branches]) and (other := comparison.rearranged(path)):
        # such as convolutions, laid out anew with weights of their own; of others the reason is not that
        mended = other - comparison.rearranged(written(other))
        path = written(mended) if mended else path
    comparison.check(path)
    coarse = [model.computes_in for model in models if model.computes_in is not None]
    return _Fused(
        folder=folder,
        path=path,
        interface=interface,
        answers=answers,
        count=len(fusion.models),
        batching=fusion.max_batch_size,
        frameworks=", ".join(dict.fromkeys(model.framework for model in models)),
        computes_in=min(coarse, key=lambda dtype: dtype.itemsize, default=None),
    )


def _table(fusion: Fusion, models: Sequence[Single], table: Sequence[int]) -> Iterator[FusedModel]:
    for number, (info, model, branch) in enumerate(zip(fusion.models, models, table, strict=True), 1):
        first = table.index(branch) + 1
        yield FusedModel(
            id=number,
            name=info.name,
            copy_of=None if first == number else first,
            source=model.source,
            scale=info.scale,
            params=dict(info.params or {}),
            inputs=tuple(tensor.name for tensor in model.inputs),
            outputs=tuple(tensor.name for tensor in model.outputs),
        )
