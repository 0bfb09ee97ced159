"""Among how many ConfigMaps the reports of a server's agents are divided: all fit, and most servers need one."""

import random
import string
from datetime import UTC, datetime

import pytest

from gravswell.serving.contracts import (
    MOST_REPORTS,
    Desired,
    DesiredModel,
    ModelReport,
    ModelState,
    Report,
    report_part,
)
from gravswell_operator.desired.reports import divided

ROOM = 1024 * 1024
"""Bytes of a ConfigMap."""


def wanted(models, **other):
    names = (DesiredModel(name=f"model-{number}", version=1) for number in range(models))
    return Desired(repository="r", models=tuple(names), **other)


@pytest.fixture
def parts(resource):
    def count(models, replicas, previous=None, **spec):
        server = resource("InferenceServer", {"spec": {"replicas": replicas, **spec}})
        return divided(wanted(models), server, previous).reports

    return count


@pytest.mark.parametrize(
    ("models", "replicas", "expected"),
    [
        (0, 1, 1),
        (1, 1, 1),
        (256, 1, 1),
        (24, 25, 1),
        (24, 26, 4),
        (256, 10, 16),
        (256, 100, 128),
        (1000, 100, MOST_REPORTS),
    ],
)
def test_few_servers_need_more_than_one(parts, models, replicas, expected):
    assert parts(models, replicas) == expected


def test_an_autoscaled_server_has_room_for_all_its_replicas(parts):
    assert parts(256, None, autoscaling={"minReplicas": 1, "maxReplicas": 10}) == 16


def test_what_agents_were_told_before_is_never_taken_back(parts):
    """What is in a ConfigMap that goes would be missing for a moment, and the replicas count as not loaded."""
    assert parts(1, 1, previous=wanted(256, reports=16)) == 16
    assert parts(256, 100, previous=wanted(256, reports=16)) == 128


def test_one_is_not_told_so_that_older_agents_and_newer_ones_read_the_same(resource):
    desired = divided(wanted(1), resource("InferenceServer"), None)
    assert desired.to_json() == wanted(1).to_json()
    assert "reports" not in desired.to_json()


def report(pod, models):
    """As long as that of a replica that serves all, of which every tenth failed with a message of the longest."""
    said = []
    for number in range(models):
        failed = {"state": ModelState.FAILED, "reason": "GoldenMismatch", "message": "x" * 500}
        said.append(
            ModelReport(
                name=f"a-model-of-some-name-{number:03}",
                desired_version=12,
                desired_digest=f"{number:064x}",
                loaded_version=12,
                loaded_digest=f"{number:064x}",
                loaded_at=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
                verified=True,
                seconds={"download": 12.345, "verify": 2.345, "load": 1.234, "prove": 0.123},
                downloaded=123_456_789,
                **(failed if number % 10 == 0 else {"state": ModelState.SERVING}),
            )
        )
    return len(Report(pod=pod, ready=True, triton="2.51.0", models=tuple(said)).to_json().encode())


@pytest.mark.parametrize(("models", "replicas"), [(256, 2), (256, 10), (256, 100), (64, 10), (500, 20), (12, 50)])
def test_reports_fit_whatever_names_the_pods_get(parts, models, replicas):
    chance = random.Random(f"{models} {replicas}")
    size = report("server-6d5f7c9b8d-abcde", models)
    count = parts(models, replicas)
    for _ in range(20):
        pods = ["server-6d5f7c9b8d-" + "".join(chance.choices(string.ascii_lowercase, k=5)) for _ in range(replicas)]
        sizes = [0] * count
        for pod in pods:
            sizes[report_part(pod, count)] += size
        assert max(sizes) < ROOM
