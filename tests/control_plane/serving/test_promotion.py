"""Aliases from end to end: a promotion in the repository becomes what the server's pod answers; so does the way back.

And what is served is safe from pruning, by the pins that the lister writes and by asking the cluster.
"""

import json

import pytest
from typer.testing import CliRunner

from gravswell.cli.app import app
from gravswell.quiver import ModelRepository

from .conftest import ENTRY


@pytest.fixture(scope="module")
def entry(place):
    for number in (2, 3):
        place.publish(number)
    entry = ModelRepository.open(place.repository).models[ENTRY]
    entry.promote(1, "champion", expect=None)
    place.make_repository()
    place.make_server()
    place.make_model(version="champion")
    place.until_serving(1)
    return entry


def told(place):
    status = place.get("model", ENTRY)["status"]
    return status["desiredVersion"], status["desiredDigest"]


def pinned(entry):
    return {pin.versions for pin in entry._reader.state(ENTRY)[0].pins.values()}


def test_a_promotion_arrives_and_so_does_the_way_back(place, entry):
    assert told(place) == (1, entry.version(1).digest)
    assert place.answer() == 1.0
    entry.promote(2, "champion", expect=1, reason="better")
    place.until_serving(2)
    assert told(place) == (2, entry.version(2).digest)
    assert place.answer() == 2.0
    entry.rollback("champion", reason="worse")
    place.until_serving(1)
    assert told(place) == (1, entry.version(1).digest)
    assert place.answer() == 1.0


def test_what_is_served_is_not_pruned(place, entry):
    """Here by its number alone: no alias holds it."""
    entry.unalias("champion")
    place.condition("model", ENTRY, status="False", reason="VersionNotFound")
    assert place.answer() == 1.0, "it serves on"
    place.make_model(version=1)
    place.until_serving(1)
    place.until(lambda: pinned(entry) == {(1,)})
    assert entry.prune(keep=1, grace="0s").going == [2]

    arguments = ["prune", place.repository, "--keep", "1", "--grace", "0s", "--pins-within", "0s", "--yes"]
    pruned = CliRunner().invoke(
        app, [*map(str, arguments), "--kubeconfig", str(place.cluster.kubeconfig), "-o", "json"]
    )
    assert pruned.exit_code == 0, pruned.output
    verdicts = {
        verdict["version"]: (verdict["goes"], verdict["reasons"]) for verdict in json.loads(pruned.stdout)["versions"]
    }
    assert [number for number, (goes, _) in verdicts.items() if goes] == [2]
    goes, (reason,) = verdicts[1]
    assert not goes
    assert f"{place.namespace}/server" in reason  # and whatever of this cluster serves the very same version
    assert entry.versions == [1, 3]
    assert place.answer() == 1.0
