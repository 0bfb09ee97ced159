"""What the shell completes: entries, versions and aliases of the repository that was typed, tags, contexts.

A completion runs at every Tab, and whoever pressed it waits. So it never fails, never prints, and never lasts: what is
not known by then, or cannot be, is not proposed.
"""

import io
import os
import re
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import redirect_stderr, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from gravswell.quiver.reader import RepositoryReader

WAIT_SECONDS = 4.0
"""How long a repository may take to answer, with what has to be imported: one that is away must not hold a shell."""

_URL_IN_THREE = re.compile(r"(?<!\S)([a-z0-9]+)\s+:\s+(//\S*)")


def entries(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the entries."""
    return _soon(lambda: _entries(_reader(ctx)), incomplete)


def targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """``ENTRY``, and behind its slash every version of it."""
    entry, slash, _ = incomplete.partition("/")
    if not slash:
        return entries(ctx, incomplete)
    return _soon(lambda: (f"{entry}/{version}" for version in _versions(_reader(ctx), entry)), incomplete)


def versions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Versions of the entry that was typed: ``latest``, aliases, numbers."""
    return _soon(lambda: _versions(_reader(ctx), ctx.params["name"]), incomplete)


def aliases(ctx: typer.Context, incomplete: str) -> list[str]:
    """Aliases of the entry that was typed."""
    return _soon(lambda: sorted(_reader(ctx).state(ctx.params["name"])[0].aliases), incomplete)


def tags(incomplete: str) -> list[str]:
    """Tags of Triton's images, the newest first."""
    from gravswell.targets import known_targets  # noqa: PLC0415 - keeps --help fast

    return [tag for tag in reversed([*known_targets()]) if tag.startswith(incomplete)]


def contexts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Contexts of the kubeconfig."""
    return _soon(lambda: _contexts(ctx.params.get("kubeconfig")), incomplete)


def mend_words(environ: MutableMapping[str, str]) -> None:
    """Put together again what bash takes apart at its colons, before typer reads it: a URL is one word."""
    words, cursor = environ.get("COMP_WORDS", ""), environ.get("COMP_CWORD", "")
    if not cursor.isdigit():
        return
    cut = [words[: url.end()].split() for url in _URL_IN_THREE.finditer(words)]
    before = sum(len(those) - 1 <= int(cursor) for those in cut)
    environ["COMP_WORDS"] = _URL_IN_THREE.sub(r"\1:\2", words)
    environ["COMP_CWORD"] = str(int(cursor) - 2 * before)


def _soon(look: Callable[[], Iterable[str]], incomplete: str) -> list[str]:
    """What ``look`` finds in time; nothing where it fails, for there is nobody to tell."""
    found: list[str] = []

    def work() -> None:
        with suppress(Exception):
            found[:] = [name for name in look() if name.startswith(incomplete)]

    with redirect_stderr(io.StringIO()):  # warnings of a cloud's library would stand in the line that is being typed
        thread = Thread(target=work, daemon=True)
        thread.start()
        thread.join(WAIT_SECONDS)
    return [] if thread.is_alive() else found


def _reader(ctx: typer.Context) -> "RepositoryReader":
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415

    # Behind an option that still lacks its value, nothing is parsed: what was typed before it is in ctx.args then.
    return RepositoryReader(ctx.params.get("repo") or ctx.params.get("source") or ctx.args[0])


def _entries(reader: "RepositoryReader") -> Iterable[str]:
    from gravswell.quiver.layout import is_readable_name  # noqa: PLC0415

    return filter(is_readable_name, reader.store.children().folders)  # one listing, however much lies in them


def _versions(reader: "RepositoryReader", entry: str) -> list[str]:
    from gravswell.quiver.aliases import LATEST  # noqa: PLC0415

    return [LATEST, *sorted(reader.state(entry)[0].aliases), *map(str, reader.numbers(entry))]


def _contexts(kubeconfig: Path | None) -> Iterable[str]:
    import yaml  # noqa: PLC0415 - only an extra brings it

    named = [kubeconfig] if kubeconfig else os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)
    for path in [Path(name).expanduser() for name in named if name]:
        if path.is_file():
            yield from (context["name"] for context in yaml.safe_load(path.read_text()).get("contexts") or ())
