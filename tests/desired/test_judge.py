"""Verdicts on new versions as a table: what clients asked of the new and of the old one, and what is made of it."""

import pytest

from gravswell.serving.contracts import Traffic
from gravswell_operator.api.rollout import Judge
from gravswell_operator.desired.judge import Requests, Verdict, judge

NONE = Requests()
STRICT = Judge(max_error_rate="0%", min_requests=0)
RULES = Judge(max_error_rate="1%", min_requests=100, max_latency_ratio="150%")


def asked(succeeded, failed=0, mean=0.01):
    return Requests(succeeded, failed, succeeded * mean)


@pytest.mark.parametrize(
    ("rules", "new", "old", "verdict", "says"),
    [
        (RULES, NONE, NONE, Verdict.UNKNOWN, "asked 0% of the 100 requests of minRequests"),
        (RULES, asked(99), asked(500), Verdict.UNKNOWN, "asked 90% of the 100"),
        (RULES, asked(100), asked(500), Verdict.GOOD, "0 of 100 failed, 10 ms on average"),
        # One of few is much, and proves nothing: what counts is what it would be of minRequests.
        (RULES, asked(4, 1), asked(500), Verdict.UNKNOWN, "0% of the 100"),
        (RULES, asked(3, 2), asked(500), Verdict.BAD, "2 of 5 failed"),
        (RULES, asked(990, 10), asked(500), Verdict.GOOD, "10 of 1000 failed"),
        (RULES, asked(989, 11), asked(500), Verdict.BAD, "11 of 1000 failed"),
        # What clients do wrong with both is no fault of the new one.
        (RULES, asked(95, 5), asked(950, 50), Verdict.GOOD, "5 of 100 failed"),
        (RULES, asked(93, 7), asked(950, 50), Verdict.BAD, "50 of 1000 failed"),
        (RULES, asked(100, mean=0.015), asked(100), Verdict.GOOD, "15 ms on average"),
        (RULES, asked(100, mean=0.0151), asked(100), Verdict.BAD, "too slow"),
        (RULES, asked(100, mean=1.0), asked(99), Verdict.GOOD, "1e+03 ms on average"),  # too few of the old one
        (RULES, asked(100, mean=1.0), NONE, Verdict.GOOD, ""),  # every replica is new
        (Judge(min_requests=1), asked(1, mean=1.0), asked(100), Verdict.GOOD, ""),  # latency is not judged
        (STRICT, NONE, NONE, Verdict.GOOD, ""),
        (STRICT, asked(10**6, 1), NONE, Verdict.BAD, "1 of 1000001 failed"),
    ],
)
def test_verdicts(rules, new, old, verdict, says):
    found, why = judge(rules, new, old)
    assert found is verdict, why
    assert says in why


def test_replicas_add_up():
    told = [Traffic(window="w", succeeded=3, failed=1, seconds=0.5), Traffic(window="w", succeeded=1, seconds=0.3)]
    assert Requests.of(told) == Requests(4, 1, 0.8)
    assert Requests.of([]) == NONE
