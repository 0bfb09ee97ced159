"""CoreDNS's source with the plugins of a cluster's own names alone: those of clouds are most of what it compiles."""

import re
from pathlib import Path

KEPT = frozenset({"cache", "errors", "kubernetes", "loadbalance", "ready"})
"""The plugins that are left."""


def trim(source: Path) -> None:
    """Take the other plugins out of a copy of the module: the list of them is a file that CoreDNS generates."""
    listing = source / "core/plugin/zplugin.go"
    kept = [line for line in listing.read_text().splitlines() if _stays(line)]
    listing.write_text("\n".join(kept) + "\n")


def _stays(line: str) -> bool:
    plugin = re.match(r'\t_ "(.+)"', line)
    return plugin is None or plugin[1].removeprefix("github.com/coredns/coredns/plugin/") in KEPT
