"""``gravswell fuse``: several models as one, checked, compiled, or asked."""

import enum
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic.alias_generators import to_camel
from rich.console import Group, RenderableType
from rich.progress import BarColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import target_of, work_display
from gravswell.errors import InvalidInputError, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    from gravswell.fusion import Plan, Predictions, Worker
    from gravswell.quiver import Fusion, ModelRepository, Version
    from gravswell.quiver.golden import Array
    from gravswell.quiver.manifest import FusedModel, TensorRecord

SYSTEM = "onnxruntime"
"""What answers, in the name of a file of predictions."""


class Mode(enum.StrEnum):
    """How far it goes."""

    VALIDATE_ONLY = "validate_only"
    COMPILE_ONLY = "compile_only"
    INFER = "infer"
    PREDICT = "predict"
    TRAIN = "train"
    EVAL = "eval"


def fuse(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[VARIANT]...", help="More variants, as of --variants.")
    ] = None,
    *,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,COUNT",
            help="A model, and how many times: an entry of --repo (m, m/3, m/champion), a file (model.onnx), a Python "
            "object (file.py:name), or what --params calls so.",
        ),
    ] = None,
    repo: Annotated[str | None, typer.Option(metavar="REPO", help="Where the variants that are entries lie.")] = None,
    params: Annotated[
        Path | None,
        typer.Option("--params", "-p", metavar="FILE", help="What the variants are: TOML, JSON or YAML, by name."),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            "--mode", "-m", help="validate_only keeps nothing, compile_only publishes it, infer and predict ask it."
        ),
    ] = Mode.VALIDATE_ONLY,
    name: Annotated[str, typer.Option(help="What the fusion is called, and its entry.")] = "fusion",
    model_dir: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes.")] = Path("model_dir"),
    into: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="The repository that gets it. Default: FOLDER/repository with compile_only, none with infer, predict.",
        ),
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(min=0, help="Rows that a server puts together; 0: none.", show_default="64")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="TAG", help="The oldest Triton that is to run it. Default: 24.08.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Who ask, each one model, in turn.", show_default="one for each model")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="What is asked: an array for each input; and model_id, where rows differ."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows of one call.", show_default="1")] = None,
    drop_remainder: Annotated[
        bool, typer.Option("--drop-remainder", help="Leave out rows at the end that make no whole batch.")
    ] = False,
    task: Annotated[
        int | None, typer.Option(min=0, help="Ends the name of the file of predictions.", show_default="0")
    ] = None,
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Load pickles. This runs the code in them: only files that you trust."),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Fuse models into one that answers each row by the model that its model_id names."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.fusion import assigned, parse_variant, planned, read_params, variant_models  # noqa: PLC0415
    from gravswell.quiver.disk import check_folder  # noqa: PLC0415
    from gravswell.quiver.layout import version_at  # noqa: PLC0415
    from gravswell.quiver.manifest import FusedModel  # noqa: PLC0415

    asking = {"--batch-size": batch_size, "--drop-remainder": drop_remainder or None, "--task": task}
    given = _given(mode, inputs, into, asking)
    if mode is not Mode.VALIDATE_ONLY:
        check_folder(model_dir)
    published = qv.ModelRepository.open(into) if into is not None else None
    plan_of = partial(planned, batch_size=batch_size or 1, drop_remainder=drop_remainder)
    wanted = [parse_variant(text) for text in (*(variants or ()), *(more or ()))]
    if not wanted:
        raise InvalidInputError('no variants: write them as --variants "base,1" "deep,2"')
    described = read_params(params) if params else {}
    with work_display(BarColumn()) as progress:
        step = progress.add_task("loading models", total=None)
        infos = variant_models(wanted, described, lambda given, said: _load(given, said, repo, allow_pickle))
        fusion = qv.fuse(infos, name)
        called = [FusedModel(id=number, name=own) for number, own in fusion.ids.items()]
        shown = assigned(workers or len(called), called)
        if given is not None:
            fusion = _checking(fusion, called, shown, given, plan_of)
        with _place(mode, published, model_dir) as (repository, kept):
            with repository.present(name, partial(repository.add, name)) as entry:
                path = entry.export_version(
                    fusion,
                    max_batch_size=max_batch_size,
                    target=target,
                    on_stage=lambda stage: progress.update(step, description=stage),
                )
            version = entry.version(version_at(path))
            table = version.manifest.fusion or ()
            data: dict[str, Any] = {
                "name": name,
                "mode": mode.value,
                "models": [
                    {to_camel(key): value for key, value in model.model_dump(mode="json").items()} for model in table
                ],
                "workers": shown,
                "path": path if kept else None,
            }
            if mode is not Mode.VALIDATE_ONLY:
                told = [f"{v.name},{v.count}" for v in wanted]
                data["params"] = _save_params(model_dir, fusion, wanted_told=told, data=data)
            if given is not None:
                plan = plan_of(given, table, shown)
                progress.update(step, description="asking", total=plan.rows, completed=0)
                found = _asked(version, plan, given, lambda rows: progress.advance(step, rows))
                file = model_dir / "predictions" / f"predictions_{SYSTEM}_{task or 0}.npz"
                found.save(file)
                data |= {"predictions": str(file), "rows": len(found.row), "dropped": found.dropped}
    emit(output, data, lambda: _text(data, table, shown))


def _given(
    mode: Mode, inputs: Path | None, into: str | None, asking: Mapping[str, object]
) -> "dict[str, Array] | None":
    """What is to be asked, if anything is. InvalidInputError for options that this mode has no use for."""
    if mode in (Mode.TRAIN, Mode.EVAL):
        raise UnsupportedError(
            f"--mode {mode.value}: several models in one graph are for inference alone, for each has its own weights, "
            f"loss and data; {mode.value} each of them with its framework, and fuse what comes out"
        )
    if mode not in (Mode.INFER, Mode.PREDICT):
        unused = [name for name, value in {"--inputs": inputs, **asking}.items() if value is not None]
        if unused:
            raise InvalidInputError(
                f"--mode {mode.value} asks the models nothing: leave {', '.join(unused)} out, or use --mode predict"
            )
        if mode is Mode.VALIDATE_ONLY and into is not None:
            raise InvalidInputError(
                "--mode validate_only publishes nothing: leave --into out, or use --mode compile_only"
            )
        return None
    if inputs is None:
        raise InvalidInputError(f"--mode {mode.value} asks the models something: give it as --inputs FILE.npz")
    from gravswell.cli.loading import load_samples  # noqa: PLC0415

    [given] = load_samples([inputs])
    return given


def _checking(
    fusion: "Fusion",
    called: "Sequence[FusedModel]",
    workers: "list[Worker]",
    given: "dict[str, Array]",
    plan_of: "Callable[..., Plan]",
) -> "Fusion":
    """The fusion, of which nothing is published unless ``given`` can be asked; the ids of its rows are checked now."""
    from gravswell.fusion import check_ids, check_outputs  # noqa: PLC0415

    def check(models: "Sequence[FusedModel]", tensors: "Sequence[TensorRecord]") -> None:
        check_outputs(name for model in models for name in model.outputs)
        plan_of(given, models, workers, tensors=tensors)

    check_ids(given, called, workers)
    return replace(fusion, check=check)


def _load(given: str, params: Mapping[str, Any] | None, repo: str | None, allow_pickle: bool) -> Any:
    """The model that a variant names: a version of an entry, a file, or a Python object; or batches, of an .npz."""
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.cli.loading import load_model, load_samples  # noqa: PLC0415
    from gravswell.fusion import lies_here  # noqa: PLC0415

    if given.endswith(".npz"):
        return load_samples([Path(given)])
    if ":" in given or lies_here(given) or (repo is None and Path(given).suffix):
        return load_model(given, allow_pickle=allow_pickle, params=params)
    if repo is None:
        raise InvalidInputError(
            f"{given!r} is no file, no SavedModel's folder and no Python object (file.py:name): say in which "
            f"repository the entry lies, with --repo, or what it is, with --params"
        )
    entry, number = target_of(qv.ModelRepository.open(repo), given)
    return entry.version(number)


@contextmanager
def _place(mode: Mode, into: "ModelRepository | None", folder: Path) -> "Iterator[tuple[ModelRepository, bool]]":
    """The repository that it is exported to, and whether that stays."""
    from gravswell import quiver as qv  # noqa: PLC0415

    if mode is Mode.COMPILE_ONLY or into is not None:
        yield into or qv.ModelRepository(folder / "repository"), True
        return
    with tempfile.TemporaryDirectory(prefix="gravswell-fuse-") as temporary:
        yield qv.ModelRepository(f"{temporary}/repository"), False


def _asked(
    version: "Version", plan: "Plan", given: "dict[str, Array]", on_rows: "Callable[[int], None]"
) -> "Predictions":
    from gravswell.fusion import predict  # noqa: PLC0415
    from gravswell.quiver.exporters import open_session, run  # noqa: PLC0415 - imports ONNX
    from gravswell.quiver.exporters.base import described  # noqa: PLC0415
    from gravswell.quiver.fusion import MODEL_ID  # noqa: PLC0415
    from gravswell.quiver.manifest import MODEL_FILE  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="gravswell-fuse-") as folder:
        place = Path(folder) / "version"
        version.fetch(place)
        session = open_session(place / MODEL_FILE)

        def answer(batch: "Mapping[str, Array]") -> "Mapping[str, Array]":
            try:
                return run(session, dict(batch))
            except Exception as error:  # ONNX Runtime's own errors share no base
                told = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in batch.items())
                raise InvalidInputError(
                    f"model {batch[MODEL_ID][0]} does not take {told}: {described(error)}"
                ) from error

        return predict(answer, plan, given, on_rows=on_rows)


def _save_params(folder: Path, fusion: "Fusion", *, wanted_told: list[str], data: dict[str, Any]) -> str:
    """Write what it was made of beside what it made."""
    from gravswell.quiver.disk import replace_file, told  # noqa: PLC0415

    path = folder / "params.json"
    kept = {"variants": wanted_told, "name": fusion.name, "mode": data["mode"], "models": data["models"]}
    kept |= {"workers": [worker.model_dump(by_alias=True) for worker in data["workers"]]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(kept, indent=2) + "\n").encode())
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written: {told(error)}") from error
    return str(path)


def _text(data: dict[str, Any], table: "tuple[FusedModel, ...]", workers: "list[Worker]") -> RenderableType:
    models = Table("model_id", "name", "source", "reads", "gives", box=None)
    for model in table:
        same = f"as model {model.copy_of}" if model.copy_of else model.source or ""
        models.add_row(*map(Text, (str(model.id), model.name, same, ", ".join(model.inputs), ", ".join(model.outputs))))
    told: list[RenderableType] = [models, ""]
    told += [Text(f"worker {w.worker}: model {w.model_id} ({w.name})") for w in workers]
    idle = [model for model in table if model.id not in {worker.model_id for worker in workers}]
    if idle:
        told.append(Text(f"no worker: {', '.join(f'model {model.id} ({model.name})' for model in idle)}"))
    told.append("")
    if data["path"] is None:
        kept = "the fusion was not kept (--into REPO publishes it)" if "predictions" in data else "nothing was kept"
        told.append(f"they go together; {kept}")
    else:
        told.append(Text(f"fusion       {data['path']}"))
    if "params" in data:
        told.append(Text(f"parameters   {data['params']}"))
    if "predictions" in data:
        left = f", {data['dropped']} dropped" if data["dropped"] else ""
        told.append(Text(f"predictions  {data['predictions']}: {data['rows']} rows{left}"))
    return Group(*told)
