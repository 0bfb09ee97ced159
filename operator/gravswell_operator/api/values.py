"""Write the table of the chart's values into its README: ``python -m gravswell_operator.api.values [--check]``.

Names and defaults are those of ``values.yaml``, meanings those of its schema. With ``--check`` nothing is written, and
a difference is an error.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CHART = Path("charts/gravswell")
HEAD = "| value | default | meaning |\n|---|---|---|\n"
_WHOLE = {"resources"}
"""Objects that are passed on as they are: one row for all of each."""


def readme(text: str, values: str, schema: str) -> str:
    """The README ``text`` with the rows that the files ``values`` and ``schema`` make; the table is its last part."""
    before, head, _ = text.partition(HEAD)
    if not head:
        raise ValueError("the chart's README.md has no table of values: it begins with | value | default | meaning |")
    return before + head + "".join(f"{row}\n" for row in rows(json.loads(schema), yaml.safe_load(values)))


def rows(schema: Mapping[str, Any], values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """A row for each value."""
    for name, value in values.items():
        node, at = schema["properties"][name], f"{path}.{name}" if path else name
        if node.get("additionalProperties") is False and "properties" in node and at not in _WHOLE:
            yield from rows(node, value, at)
        else:
            yield f"| `{at}` | `{json.dumps(value)}` | {node['description']} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the README; 1 if a check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m gravswell_operator.api.values", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the README would change")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the current folder)")
    options = parser.parse_args(arguments)
    chart: Path = options.root / CHART
    if not (chart / "values.yaml").is_file():
        parser.error(f"{options.root.resolve()} is not a checkout of gravswell; go there, or name one with --root")
    path = chart / "README.md"
    text = path.read_text()
    made = readme(text, (chart / "values.yaml").read_text(), (chart / "values.schema.json").read_text())
    if options.check and made != text:
        print(f"{path} is out of date; run python -m gravswell_operator.api.values", file=sys.stderr)
        return 1
    if not options.check:
        path.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
