"""A root file system of Debian's packages by ``mmdebstrap``, had from where this machine has its own packages.

By itself mmdebstrap asks Debian's own servers, with nothing of what the machine's apt is told: behind a mirror or a
proxy there is nothing to be had there.
"""

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from email.parser import HeaderParser
from pathlib import Path

_APT = Path("/etc/apt")
_NAME = "machine.sources"
_FORGET = f'--customize-hook=rm "$1/etc/apt/sources.list.d/0000{_NAME}"'  # under that name mmdebstrap puts it there
_ARCHIVES = ("", "-updates", "-security")
"""What follows a release's name in the names of its archives that are wanted here."""
_LISTS = {"arch": "Architectures", "lang": "Languages", "target": "Targets"}
"""Options of a line that have another name in a paragraph, where they hold several values."""
_ONE_LINE = re.compile(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]+)")

Fields = Mapping[str, str]


def bootstrapping(
    suite: str, archive: Path, options: Sequence[str], scratch: Path
) -> tuple[list[str | Path], dict[str, str]]:
    """Return the command that writes the root file system of ``suite`` to ``archive``, and its environment.

    Nothing of this machine's mirrors and proxies is left in it. ``scratch`` is a folder for what comes up meanwhile.
    """
    environment = {**os.environ, **_proxies(), "TMPDIR": str(scratch)}
    command: list[str | Path] = ["mmdebstrap", "--quiet", *options]
    text = sources(suite)
    if not text:
        return [*command, suite, archive], environment
    file = scratch / _NAME
    file.write_text(text)
    return [*command, _FORGET, suite, archive, file], environment


def sources(suite: str, apt: Path = _APT) -> str:
    """Return this machine's sources of Debian's packages, of release ``suite`` in place of its own, as deb822.

    Empty where this is no Debian, or has no such sources. ``apt`` is the folder of its configuration.
    """
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    own = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not own:
        return ""
    names = {f"{own}{archive}": f"{suite}{archive}" for archive in _ARCHIVES}
    found = [_of_suite(fields, names) for fields in (*_lines(apt), *_paragraphs(apt)) if _is_wanted(fields)]
    if not any(suite in fields["Suites"].split() for fields in found):
        return ""
    written = ("".join(f"{name}: {value}\n" for name, value in fields.items()) for fields in found if fields["Suites"])
    return "\n".join(written)


def _of_suite(fields: Fields, names: Fields) -> dict[str, str]:
    suites = " ".join(names[suite] for suite in fields["Suites"].split() if suite in names)
    return {**fields, "Types": "deb", "Suites": suites, "Components": "main"}


def _is_wanted(fields: Fields) -> bool:
    return (
        "deb" in fields.get("Types", "").split()
        and "main" in fields.get("Components", "").split()
        and "Suites" in fields
        and fields.get("Enabled", "yes").strip().lower() not in {"no", "false", "without", "off", "disable"}
    )


def _lines(apt: Path) -> Iterator[Fields]:
    """The sources in one-line style, as paragraphs."""
    for file in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))):
        for line in file.read_text().splitlines() if file.exists() else ():
            if parts := _ONE_LINE.match(line):
                options, uri, suite, components = parts.groups()
                fields = {"Types": "deb", "URIs": uri, "Suites": suite, "Components": components.strip()}
                for option in (options or "").split():
                    name, _, value = option.partition("=")
                    fields[_LISTS.get(name, name)] = value.replace(",", " ") if name in _LISTS else value
                yield fields


def _paragraphs(apt: Path) -> Iterator[Fields]:
    """The sources in deb822 style. A key that stands in one stays there."""
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        text = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#"))
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            found = HeaderParser().parsestr(paragraph)
            yield {_canonical(name): str(value) for name, value in found.items()}


def _canonical(name: str) -> str:
    """A field's name as it is looked up here: apt takes any case."""
    known = {"types": "Types", "uris": "URIs", "suites": "Suites", "components": "Components", "enabled": "Enabled"}
    return known.get(name.lower(), name)


def _proxies() -> dict[str, str]:
    """The proxies of this machine's apt, as the environment names them, where it does not yet."""
    found = {}
    for scheme in ("http", "https"):
        asked = ["apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy"]
        try:
            said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
        except FileNotFoundError:  # no apt: nothing is said to it
            return {}
        proxy = "".join(shlex.split(said)).removeprefix("PROXY=")
        if proxy not in {"", "DIRECT"} and f"{scheme}_proxy" not in os.environ:
            found[f"{scheme}_proxy"] = proxy
    return found
