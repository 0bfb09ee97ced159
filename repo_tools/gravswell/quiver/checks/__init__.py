"""What is wrong with a configuration, told from it alone: the same rules for whoever writes one and for ``lint``.

Its law: a check is a function of the message; it knows no repository, no graph and no server.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from gravswell.errors import InvalidInputError
from gravswell.quiver.checks import backends, ensembles, instances, scheduling, tensors, warmup
from gravswell.quiver.checks.rules import RULES, Finding, Rule, Severity

__all__ = ["RULES", "Finding", "Rule", "Severity", "findings", "refuse", "refuse_new"]

_CHECKS: tuple[Callable[[Any, str], Iterator[Finding]], ...] = (
    backends.check,
    tensors.check,
    warmup.check,
    scheduling.check,
    instances.check,
    ensembles.check,
)


def findings(config: Any, place: str = "config.pbtxt") -> list[Finding]:
    """Everything that the ``ModelConfig`` alone shows to be wrong, in the order of its parts; ``place`` is its file."""
    return [finding for check in _CHECKS for finding in check(config, place)]


def refuse(config: Any, where: str) -> None:
    """InvalidInputError, naming the fields, for a configuration that no Triton loads. ``where`` is its file."""
    _raise([finding for finding in findings(config) if finding.severity is Severity.REFUSED], where)


def refuse_new(before: Any, after: Any, where: str, *, effective: bool = False) -> None:
    """InvalidInputError for what an edit broke: what was wrong before is no obstacle to it, nor what is unfinished.

    :param effective: refuse also what has no effect.
    """
    bad = {Severity.REFUSED, Severity.IGNORED} if effective else {Severity.REFUSED}
    old = Counter(map(_kind, findings(before)))
    new = []
    for finding in findings(after):
        old[_kind(finding)] -= 1
        if finding.severity in bad and not finding.unfinished and old[_kind(finding)] < 0:
            new.append(finding)
    _raise(new, where)


def _kind(finding: Finding) -> tuple[str, str]:
    """The same fault of the same field; in a list wherever: what stands before it may have been taken out."""
    return finding.rule.id, re.sub(r"\[[0-9]+\]", "[]", finding.field)


def _raise(found: list[Finding], where: str) -> None:
    if found:
        told = "; ".join(f"{f.field}: {f.fact} [{f.rule.id}]: {f.rule.way_out}" for f in found)
        raise InvalidInputError(f"{where}: {told}")
