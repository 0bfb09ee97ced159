"""``ls`` and ``show``: what there is in a repository, what it is named, and which clusters serve it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, when
from gravswell.cli.shared import OneEntry, Repository, Target, existing_entry, target_of

if TYPE_CHECKING:
    from gravswell.quiver.manifest import FusedModel, Manifest
    from gravswell.quiver.reader import EntryInfo, RepositoryReader, VersionInfo


def ls(repo: Repository, name: OneEntry = None, output: OutputOption = Output.TEXT) -> None:
    """List the entries of a repository, or the versions of an entry."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below

    repository = qv.ModelRepository.open(repo)
    reader = repository.reader
    found = reader.survey() if name is None else {name: reader.look(existing_entry(repository, name).name)}
    served = {entry: _served(info) for entry, info in found.items()}
    data = {
        entry: [
            {
                "version": v.number,
                "aliases": _names(info.aliases, v.number),
                "servedBy": served[entry].get(v.number, []),
                "digest": v.digest,
                "size": v.size,
                "created": v.created,
                **({"members": [m.model_dump(mode="json") for m in v.members]} if v.members else {}),
            }
            for v in info.versions
        ]
        for entry, info in found.items()
    }
    unreadable = {entry: info.error for entry, info in found.items() if info.error is not None}

    def text() -> RenderableType:
        if not found:
            return Text(f"{repo} has no entries yet: gravswell add {repo} NAME")
        return _table(found, served, every=name is not None)

    emit(output, data, text)
    if unreadable:
        kind = type(next(iter(unreadable.values())))
        raise kind("; ".join(f"{entry} cannot be read: {error}" for entry, error in unreadable.items()))


def show(repo: Repository, target: Target, output: OutputOption = Output.TEXT) -> None:
    """Show an entry's configuration and versions, or all that is known of one version."""
    from gravswell import quiver as qv  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    entry, number = target_of(repository, target)
    info = repository.reader.look(entry.name)
    if info.error is not None:
        raise info.error
    if number is None:
        _show_entry(entry, info, repository.reader, output)
    else:
        _show_version(entry.version(number), entry.name, info, output)


def _show_entry(entry: Any, info: "EntryInfo", reader: "RepositoryReader", output: Output) -> None:
    from gravswell.quiver.composition.holding import pipelines_of  # noqa: PLC0415

    versions = [v.number for v in reversed(info.versions)]
    held = pipelines_of(reader, entry.name, info.state)
    served = _by_cluster(_served(info))
    config = entry.config  # which is read anew each time that it is asked for
    text = str(config)
    data = {
        "name": entry.name,
        "platform": str(config.platform),
        "versions": versions,
        "aliases": info.aliases,
        "servedBy": served,
        "memberOf": {number: held[number] for number in sorted(held)},
        "inputs": [record.model_dump() for record in entry.inputs.values()],
        "outputs": [record.model_dump() for record in entry.outputs.values()],
        "config": text,
    }
    emit(
        output,
        data,
        lambda: Group(
            Text(text.rstrip()),
            "",
            f"versions: {', '.join(map(str, versions)) or 'none yet'}",
            *(f"{alias}: {number}" for alias, number in sorted(info.aliases.items())),
            *(Text(f"served by {cluster}: {', '.join(map(str, those))}") for cluster, those in served.items()),
            *(Text(f"{number} is a member of {', '.join(those)}") for number, those in sorted(held.items())),
        ),
    )


def _show_version(version: Any, entry: str, info: "EntryInfo", output: Output) -> None:
    number = int(version)
    names, clusters = _names(info.aliases, number), _served(info).get(number, [])
    data: dict[str, Any] = {
        "version": number,
        "aliases": names,
        "servedBy": clusters,
        "digest": version.digest,
        "size": version.size,
        "manifest": None,
    }
    if version.digest is None:
        told = f"{entry}/{number} is unverified: something else wrote it, and recorded nothing of it"
        emit(output, data, lambda: Text(told))
        return
    manifest = version.manifest
    data["manifest"] = manifest.model_dump(mode="json")

    def text() -> RenderableType:
        table = Table(Column(no_wrap=True), Column(overflow="fold"), box=None, show_header=False)
        for key, value in (
            ("digest", version.digest),
            ("aliases", ", ".join(names) or "none"),
            ("served by", ", ".join(clusters) or "no cluster that is known"),
            ("created", f"{when(manifest.created)} UTC"),
            ("size", decimal(version.size)),
            ("parent", manifest.parent or "none"),
            ("framework", manifest.framework),
            ("exporter", manifest.exporter),
            *((f"member {m.alias}", f"{m.model}/{m.version}, digest {m.digest[:12]}…") for m in manifest.members),
            *_variant(manifest),
            *((f"model_id {m.id}", _fused(m)) for m in manifest.fusion or ()),
            ("opset, IR", f"{manifest.opset}, {manifest.ir_version}"),
            *((f"input {r.name}", f"{r.data_type} {list(r.dims)}") for r in manifest.signature.inputs),
            *((f"output {r.name}", f"{r.data_type} {list(r.dims)}") for r in manifest.signature.outputs),
            *((f"error of {k}", f"{e.max_abs:.3g} absolute, {e.max_rel:.3g} relative")
              for k, e in manifest.verification.errors.items()),
            *((f"file {path}", f"{decimal(record.size)}, sha256 {record.sha256[:12]}…")
              for path, record in manifest.files.items()),
        ):  # fmt: skip
            table.add_row(Text(key), Text(str(value)))
        return table

    emit(output, data, text)


def _fused(model: "FusedModel") -> str:
    """A model of a fusion: what it is called, and what it was."""
    was = f"as model_id {model.copy_of}" if model.copy_of else model.source
    return f"{model.name} ({was})" if was else model.name


def _variant(manifest: "Manifest") -> list[tuple[str, str]]:
    """What a version of lower precision was made from, and how far it is from that."""
    variant = manifest.verification.variant
    if variant is None:
        return []
    return [
        ("variant", f"{variant.kind} ({variant.method}) of version {variant.version}, digest {variant.digest[:12]}…"),
        ("may differ", f"by {variant.max_error:.2%} of an output's largest value"),
        *((f"variant's {name}", f"{e.told()}, over {variant.rows} rows") for name, e in variant.errors.items()),
    ]


def _table(found: "Mapping[str, EntryInfo]", served: Mapping[str, Mapping[int, list[str]]], *, every: bool) -> Table:
    """A row for each entry, with its newest version, or one for ``every`` version."""
    columns = ("entry", "version") if every else ("entry", "latest", "versions")
    by = ("served by",) if any(served.values()) else ()
    shown = [v for info in found.values() for v in (info.versions if every else info.versions[:1])]
    of = ("members",) if any(v.members for v in shown) else ()
    table = Table(*columns, "aliases", *by, *of, "digest", "size", "created", box=None)
    for entry, info in found.items():
        for v in info.versions if every else info.versions[:1]:
            if every:
                cells = [entry, str(v.number), ", ".join(_names(info.aliases, v.number))]
                clusters = ", ".join(served[entry].get(v.number, ()))
            else:
                named = ", ".join(f"{alias} {number}" for alias, number in sorted(info.aliases.items()))
                cells = [entry, str(v.number), str(len(info.versions)), named]
                clusters = ", ".join(f"{c} {n}" for c, numbers in _by_cluster(served[entry]).items() for n in numbers)
            cells += [clusters] if by else []
            cells += [", ".join(f"{m.model}/{m.version}" for m in v.members)] if of else []
            table.add_row(*map(Text, cells), *_facts(v))
        if not info.versions and info.error is None:
            table.add_row(Text(entry), "none yet")
        if info.error is not None:
            table.add_row(Text(entry), Text("unreadable", style="red"))
    return table


def _facts(v: "VersionInfo") -> tuple[str, str, str]:
    return v.digest[:12] if v.digest else "unverified", decimal(v.size), when(v.created)


def _names(aliases: Mapping[str, int], number: int) -> list[str]:
    return sorted(alias for alias, target in aliases.items() if target == number)


def _served(info: "EntryInfo") -> dict[int, list[str]]:
    """The versions that clusters pinned, and so what ``rm`` refuses, with the clusters' names."""
    from gravswell.quiver.pins import PINS_COUNT_FOR, pinned  # noqa: PLC0415

    return pinned(info.state, PINS_COUNT_FOR)


def _by_cluster(served: Mapping[int, list[str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, clusters in sorted(served.items()):
        for cluster in clusters:
            found.setdefault(cluster, []).append(number)
    return found
