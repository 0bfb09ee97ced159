"""A server whose agents report more than a ConfigMap of the API server holds: 256 models on each of ten replicas."""

from datetime import UTC, datetime

import pytest

from gravswell.errors import GravswellError
from gravswell.serving.contracts import (
    LISTING_KEY,
    ListedEntry,
    ListedVersion,
    Listing,
    ModelReport,
    ModelState,
    Report,
    report_configmap,
    report_part,
)

from .conftest import digest

MODELS, REPLICAS, PARTS = 256, 10, 16
ENTRIES = [f"model-{number:03}" for number in range(1, MODELS + 1)]
NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def report(pod):
    """As long as one of a replica that serves everything."""
    said = tuple(
        ModelReport(
            name=entry,
            state=ModelState.SERVING,
            desired_version=1,
            desired_digest=digest(number),
            loaded_version=1,
            loaded_digest=digest(number),
            loaded_at=NOW,
            verified=True,
            seconds={"download": 12.345, "verify": 2.345, "load": 1.234, "prove": 0.123},
            downloaded=123_456_789,
        )
        for number, entry in enumerate(ENTRIES, 1)
    )
    return Report(pod=pod, ready=True, triton="2.51.0", models=said).to_json()


@pytest.fixture
def many(world):
    world.make_repository()
    world.make_server(models="All", replicas=REPLICAS)
    versions = {entry: ListedVersion(number=1, digest=digest(number)) for number, entry in enumerate(ENTRIES, 1)}
    entries = tuple(ListedEntry(name=entry, versions=(version,)) for entry, version in versions.items())
    listing = Listing(repository="file:///srv/models", observed_at=NOW, accessible=True, entries=entries)
    world.until(lambda: world.get("configmap", "models-listing"))
    world.patch("configmap", "models-listing", {"data": {LISTING_KEY: listing.to_json()}})
    world.until(lambda: world.get("configmap", report_configmap("server-report", PARTS - 1)))
    world.rolled_out()
    return world


def test_every_replica_is_known_to_serve_every_model(many, operator):
    reports = {pod: report(pod) for pod in many.pods()}
    assert len(reports) == REPLICAS
    places = {pod: report_configmap("server-report", report_part(pod, PARTS)) for pod in reports}
    for pod, text in reports.items():
        many.patch("configmap", places[pod], {"data": {pod: text}})
    told = many.condition("inferenceserver", "server", "ModelsLoaded", status="True")
    assert told["message"] == f"{MODELS} models on {REPLICAS} replicas"
    operator.restart()
    many.until(lambda: operator.has_looked("InferenceServer"))
    told = many.condition("inferenceserver", "server", "ModelsLoaded", status="True")
    assert told["message"] == f"{MODELS} models on {REPLICAS} replicas"
    with pytest.raises(GravswellError, match="may not be more than 1048576 bytes"):  # all in one
        many.patch("configmap", "server-report", {"data": reports})


def test_agents_write_to_their_servers_reports_alone(many):
    def may(verb, name):
        account = f"system:serviceaccount:{many.namespace}:server-agent"
        answer = many.kubectl("auth", "can-i", verb, f"configmaps/{name}", f"--as={account}", check=False)
        return answer.strip() == "yes"

    assert may("patch", "server-report")
    assert may("patch", f"server-report-{PARTS - 1}")
    assert not may("patch", f"server-report-{PARTS}")
    assert not may("patch", "other-report-1")
    assert not may("delete", "server-report-1")
