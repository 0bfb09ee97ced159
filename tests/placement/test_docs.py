"""``docs/placement.md`` says what happens."""

import doctest
import re
from pathlib import Path

from ..commands import Run, run

__all__ = ["run"]

DOCS = Path(__file__).parents[2] / "docs/placement.md"


def test_the_python_in_the_docs_does_what_stands_there() -> None:
    failed, tried = doctest.testfile(str(DOCS), module_relative=False)
    assert (failed, tried > 5) == (0, True)


def test_the_commands_in_the_docs_print_what_stands_there(run: Run) -> None:
    blocks = re.findall(r"```console\n\$ gravswell (.*)\n((?:.*\n)*?)```", DOCS.read_text())
    assert blocks
    for command, printed in blocks:
        told = run(*command.split())
        assert [line.split() for line in told.out.splitlines()] == [line.split() for line in printed.splitlines()]
