"""What the kinds that run pods say of them in the same way."""

import re
from collections.abc import Sequence

from gravswell_operator.conditions import Reason
from gravswell_operator.state import PodState, Problem

_WORD = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_URGENCY = (
    Reason.NODE_NOT_READY,
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_CONFIG_ERROR,
    Reason.CRASH_LOOP,
    Reason.POD_UNSCHEDULABLE,
    Reason.POD_FAILED,
)


def first_problem(pods: Sequence[PodState]) -> Problem | None:
    """The one problem that a condition names: the most certain kind, of the first pod by name."""
    problems = [p.problem for p in sorted(pods, key=lambda p: p.name) if p.problem is not None and not p.terminating]
    return min(problems, key=lambda p: _URGENCY.index(p.reason), default=None)


_WAYS_OUT = (
    ("exceeded quota", "raise the ResourceQuota, or free something of it"),
    ("failed quota", "let a LimitRange of the namespace give what the quota asks for by default"),
    ("usage per Container", "lower what the server asks for, or raise the namespace's LimitRange"),
    ("usage per Pod", "lower what the server asks for, or raise the namespace's LimitRange"),
    (
        "violates PodSecurity",
        "something here adds that: by themselves these pods keep the restricted standard",
    ),
    ("serviceaccount", "make the ServiceAccount, or mend serviceAccountName"),
    ("", "mend what refuses them"),
)
"""By what the API server's refusal of a pod contains; the first that fits."""


def refused(message: str) -> str:
    """Why pods cannot be made, in the API server's words, and the way out."""
    way_out = next(way for words, way in _WAYS_OUT if words in message)
    return f"pods are refused: {message}; {way_out}"


def agent_reason(reason: str, otherwise: Reason) -> str:
    """The agent's or lister's own reason where it can be a condition's, else ``otherwise``."""
    return reason if _WORD.fullmatch(reason) else otherwise
