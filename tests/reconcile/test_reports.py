"""Reports of a server with so many models and replicas that they do not fit into one ConfigMap."""

import json

import pytest

from gravswell.serving.contracts import (
    DESIRED_KEY,
    LISTING_KEY,
    MOST_REPORTS,
    ListedEntry,
    ListedVersion,
    Listing,
    ModelReport,
    ModelState,
    Report,
    report_part,
)
from gravswell_operator.cluster import resources

ENTRIES = [f"model-{number:02}" for number in range(64)]
PODS = [f"server-{number}" for number in range(12)]
PARTS = 4


def digest(entry):
    return f"{ENTRIES.index(entry) + 1:064x}"


def see_pod(world, name):
    labels = world.get("Deployment", "server")["spec"]["template"]["metadata"]["labels"]
    metadata = {"name": name, "namespace": "ns", "labels": labels}
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return world.see(resources.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": ready})


def write(world, pod, configmap, loaded=True):
    """As the agent of the pod: every model serves, or none does yet."""
    said = tuple(
        ModelReport(
            name=entry,
            state=ModelState.SERVING if loaded else ModelState.WAITING,
            desired_version=1,
            desired_digest=digest(entry),
            loaded_version=1 if loaded else None,
            loaded_digest=digest(entry) if loaded else None,
        )
        for entry in ENTRIES
    )
    found = world.get("ConfigMap", configmap)
    data = {**found.get("data", {}), pod: Report(pod=pod, ready=loaded, models=said).to_json()}
    world.see(resources.CONFIG_MAP, {**found, "data": data})


def configmaps(world):
    names = [name for kind, _, name in world.api.objects if kind == "ConfigMap" and name.startswith("server-report")]
    return sorted(names)


def place_of(pod):
    part = report_part(pod, PARTS)
    return f"server-report-{part}" if part else "server-report"


@pytest.fixture
async def many(served):
    """64 models on 12 replicas."""
    served.change(resources.INFERENCE_SERVER, "server", replicas=len(PODS), models="All")
    await served.settle()
    assert configmaps(served) == ["server-report"]
    entries = tuple(
        ListedEntry(name=entry, versions=(ListedVersion(number=1, digest=digest(entry)),)) for entry in ENTRIES
    )
    listing = Listing(repository="pvc://claim/folder", observed_at=served.now, accessible=True, entries=entries)
    found = served.get("ConfigMap", "models-listing")
    served.see(resources.CONFIG_MAP, {**found, "data": {**found["data"], LISTING_KEY: listing.to_json()}})
    for pod in PODS:
        see_pod(served, pod)
    await served.settle()
    return served


def loaded(world):
    """On how many replicas the server says that each model is."""
    counts = {model["replicas"] for model in world.get("InferenceServer", "server")["status"]["models"]}
    assert len(counts) == 1
    return counts.pop()


async def test_agents_may_write_to_all_parts_and_to_nothing_else(many):
    expected = ["server-report", *(f"server-report-{part}" for part in range(1, PARTS))]
    assert configmaps(many) == expected
    (rule,) = [rule for rule in many.get("Role", "server-agent")["rules"] if "patch" in rule["verbs"]]
    assert rule["resourceNames"] == expected


async def test_what_agents_write_is_read_wherever_it_is(many):
    for pod in PODS[:6]:
        write(many, pod, place_of(pod))
    await many.settle()
    assert loaded(many) == 6
    for pod in PODS[6:]:
        write(many, pod, "server-report")  # of an earlier release
    await many.settle()
    assert loaded(many) == 12
    many.restart()
    many.api.writes.clear()
    await many.settle()
    assert many.api.writes == []


async def test_of_a_report_in_two_parts_the_pods_own_counts(many):
    """An agent that moves writes there first."""
    pod = next(pod for pod in PODS if report_part(pod, PARTS))
    write(many, pod, "server-report", loaded=False)
    write(many, pod, place_of(pod))
    await many.settle()
    assert loaded(many) == 1
    later = next(pod for pod in PODS if report_part(pod, PARTS) == 0)
    write(many, later, "server-report")
    write(many, later, "server-report-3", loaded=False)
    await many.settle()
    assert loaded(many) == 2


async def test_a_pod_that_is_gone_is_forgotten_in_every_part(many):
    for pod in PODS:
        write(many, pod, place_of(pod))
    await many.settle()
    for pod in PODS[1:]:
        many.remove(resources.POD, pod)
    await many.settle()
    left = [pod for name in configmaps(many) for pod in many.get("ConfigMap", name).get("data", {})]
    assert left == PODS[:1]


async def test_nothing_is_lost_when_the_parts_grow_and_they_do_not_shrink(many):
    for pod in PODS:
        write(many, pod, place_of(pod))
    await many.settle()
    many.change(resources.INFERENCE_SERVER, "server", replicas=40)  # told in 16 parts, and no agent has moved yet
    await many.settle()
    assert len(configmaps(many)) == 16
    assert loaded(many) == 12
    many.change(resources.INFERENCE_SERVER, "server", replicas=1)
    await many.settle()
    assert len(configmaps(many)) == 16
    assert loaded(many) == 12


@pytest.mark.parametrize("parts", [MOST_REPORTS + 1, 1000])
async def test_who_writes_to_the_desired_state_has_no_number_of_configmaps_made(many, parts):
    """Whoever may change ConfigMaps of one namespace would else cost the operator of all its memory."""
    found = many.get("ConfigMap", "server-desired")
    document = {**json.loads(found["data"][DESIRED_KEY]), "reports": parts}
    many.see(resources.CONFIG_MAP, {**found, "data": {DESIRED_KEY: json.dumps(document)}})
    await many.settle()
    assert len(configmaps(many)) == PARTS
    assert json.loads(many.get("ConfigMap", "server-desired")["data"][DESIRED_KEY])["reports"] == PARTS


async def test_a_repository_knows_what_is_served_by_all_parts(many):
    pod = next(pod for pod in PODS if report_part(pod, PARTS))
    write(many, pod, place_of(pod))
    many.change(resources.INFERENCE_SERVER, "server", models="Declared")
    await many.settle()
    assert many.desired() == {}
    told = many.get("ConfigMap", "models-listing")["data"]["served.json"]
    assert all(f'"{entry}":[1]' in told for entry in ENTRIES)  # still loaded there
