"""``docs/lint.md``, made of the rules: ``python -m gravswell.quiver.lint.document docs/lint.md``."""

import sys
from pathlib import Path

from gravswell.quiver.lint.rules import RULES, Severity

_HEAD = """\
# What `gravswell lint` tells

`gravswell lint REPO [ENTRY]` looks at a repository as a plain Triton would serve it. Each finding names the place, the
fact and the way out. The command exits with 5 if anything is refused. `--target TAG` also holds the graphs against the
ONNX Runtime of Triton's image of that tag, from 20.11 on.

What a configuration shows by itself is checked when it is written too, by the same rules: an edit that Triton would
refuse (`entry.config`, `gravswell config set`) is an error that names the field, and nothing is published with one.

This file is made of the rules in the code: `python -m gravswell.quiver.lint.document docs/lint.md`.
"""

_MEANING = {
    Severity.REFUSED: "The model does not load.",
    Severity.GUESSED: "It loads, with a value that Triton made up.",
    Severity.IGNORED: "It loads, and what was written there has no effect.",
    Severity.NOTE: "It loads; whether it serves as meant depends on the machine, or on who asks.",
}


def markdown() -> str:
    """The whole document."""
    parts = [_HEAD]
    for severity in Severity:
        parts.append(
            f"\n## {severity.capitalize()}\n\n{_MEANING[severity]}\n\n| rule | what | the way out |\n|---|---|---|\n"
        )
        parts += [f"| `{r.id}` | {r.meaning} | {r.way_out} |\n" for r in RULES.values() if r.severity is severity]
    return "".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown())
