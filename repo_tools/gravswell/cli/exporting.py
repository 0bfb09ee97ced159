"""``gravswell export``: from what a user types for a model to a published version of it."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.progress import DownloadColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.text import Text

from gravswell.cli import completion
from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import Name, Repository, Sized, existing_entry, work_display
from gravswell.errors import NotFoundError


def export(
    repo: Repository,
    name: Name,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="model.onnx; model.keras or .h5; a TensorFlow SavedModel's folder; XGBoost's model.ubj or .json; "
            "LightGBM's model.txt; file.py:object or module:object, a model or a function that returns one. With "
            "--allow-pickle: a scikit-learn estimator (.joblib, .pkl), a torch module, TorchScript or exported program "
            "(.pt, .pth, .pt2).",
        ),
    ],
    input_shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIMS", help="Shape of an input, -1 for any size: x=-1,64; () for a number."),
    ] = None,
    input_type: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TYPE", help="Type of an input: ids=int64.")
    ] = None,
    output_name: Annotated[list[str] | None, typer.Option(help="Name of each output, in order.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="The version's number. Default: the next.")] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(min=0, help="Let the server form batches of up to so many rows.")
    ] = None,
    opset: Annotated[int | None, typer.Option(min=1, help="The ONNX opset to export to.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TAG",
            help="The oldest Triton that is to run it, 20.11 or newer. Default: 24.08.",
            autocompletion=completion.tags,
        ),
    ] = None,
    rtol: Annotated[float | None, typer.Option(min=0, help="Relative tolerance of the proof.")] = None,
    atol: Annotated[float | None, typer.Option(min=0, help="Absolute tolerance of the proof.")] = None,
    sample_inputs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.npz",
            help="Prove it with this batch in place of random ones: an array for each input, under its name. "
            "Repeat it for several batches.",
        ),
    ] = None,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Load a pickle, or a file of torch's. This runs the code in it: only files that you trust.",
        ),
    ] = False,
    create: Annotated[bool, typer.Option("--add", help="Add the entry first if there is none.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Export a model as the next version: proved in ONNX Runtime first, then published all at once."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.cli.loading import load_model, load_samples, named, shape  # noqa: PLC0415
    from gravswell.quiver.layout import version_at  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    shapes = {key: shape(key, dims) for key, dims in named("--input-shape", input_shape)} or None
    samples = load_samples(sample_inputs or [])
    with work_display(TimeElapsedColumn(), Sized(DownloadColumn()), Sized(TransferSpeedColumn())) as progress:
        task = progress.add_task(f"loading {model}", total=None)
        loaded = load_model(model, allow_pickle=allow_pickle)
        types = dict(named("--input-type", input_type)) or None
        with repository.present(name, partial(_made, repository, name, create, loaded)) as entry:
            path = entry.export_version(
                loaded,
                shapes,
                output_name,
                version=version,
                input_types=types,
                sample_inputs=samples or None,
                max_batch_size=max_batch_size,
                opset=opset,
                target=target,
                rtol=rtol,
                atol=atol,
                on_stage=lambda stage: progress.update(task, description=stage),
                on_progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    try:
        made = entry.version(version_at(path))
        manifest = made.manifest
    except NotFoundError:
        raise NotFoundError(f"{path} was published, and somebody has removed it since") from None
    proof = manifest.verification
    sizes = f" of {', '.join(map(str, proof.batch_sizes))} rows" if proof.batch_sizes else ""
    whose = "your inputs" if proof.inputs == "given" else "random inputs (--sample-inputs proves it with yours)"
    apart = max((error.max_abs for error in proof.errors.values()), default=0.0)
    emit(
        output,
        {"path": path, "version": int(made), "digest": made.digest, "manifest": manifest.model_dump(mode="json")},
        lambda: Group(
            Text(path, style="bold"),
            f"  equals {proof.reference} on {proof.samples} batches{sizes}, {whose}",
            f"  differences up to {apart:.2g}",
            *(f"  proved where {limit}; the model took nothing that was tried beyond" for limit in proof.within),
            *(Text(f"  calls {m.alias}: {m.model}/{m.version}") for m in manifest.members),
            f"  digest {made.digest}",
        ),
    )


def _made(repository: Any, name: str, create: bool, model: Any) -> Any:
    """An entry that there is not yet, where that is wanted."""
    if not create:
        return existing_entry(repository, name)
    from gravswell.quiver.composition.base import Composite  # noqa: PLC0415 - keeps --help fast
    from gravswell.quiver.platform import Platform  # noqa: PLC0415

    return repository.add(name, Platform.PIPELINE if isinstance(model, Composite) else Platform.ONNX)
