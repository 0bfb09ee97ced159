"""Every reason has a line in the runbook, and every line is of a reason that exists and is given."""

import re
from pathlib import Path

import pytest

from gravswell.serving.contracts import Reason as AgentReason
from gravswell_operator.conditions import Reason

ROOT = Path(__file__).parents[2]
LINES = [line for line in (ROOT / "docs/runbook.md").read_text().splitlines() if line.startswith("| `")]
DOCUMENTED = [name for line in LINES for name in re.findall(r"`(\w+)`", line.split("|")[1])]
SOURCES = [path.read_text() for path in (ROOT / "operator/gravswell_operator").rglob("*.py")]


def test_every_reason_has_a_line():
    assert {reason.value for reason in (*Reason, *AgentReason)} == set(DOCUMENTED)


def test_no_reason_has_two():
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


def test_every_line_says_what_it_means_and_what_to_do():
    assert all(len([cell for cell in line.split("|") if cell.strip()]) == 3 for line in LINES)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_given_somewhere(reason):
    assert any(re.search(rf"\bReason\.{reason.name}\b", source) for source in SOURCES)
