"""When failed probes are proof."""

import pytest

from gravswell.serving.agent.health import Health, InferenceCounts


@pytest.mark.parametrize(
    ("probes", "proof_at"),
    [
        pytest.param("FFF", 3, id="three in a row"),
        pytest.param("FF", None, id="two are no proof"),
        pytest.param("FFSSSSFF", None, id="right answers clear it"),
        pytest.param("FSFSFSFSF", 9, id="every other one fails: one of two instances is dead"),
        pytest.param("FSSFSSFSSFSS", None, id="one in three fails"),
    ],
)
def test_probes(probes: str, proof_at: int | None):
    health, found = Health(), None
    for number, probe in enumerate(probes, start=1):
        if probe == "S":
            health.answered(InferenceCounts(number, 0))
        elif health.failed():
            found = number
            break
    assert found == proof_at


@pytest.mark.parametrize(
    ("before", "now", "good"),
    [
        (None, (10, 0), False),
        ((10, 0), (10, 0), False),
        ((10, 0), (11, 0), True),
        ((10, 5), (11, 5), True),
        ((10, 5), (90, 6), False),
        ((10, 5), (10, 9), False),
        ((10, 5), (3, 0), False),
    ],
    ids=["first look", "idle", "used", "used, old errors", "used, new errors", "only errors", "counted anew"],
)
def test_good_use(before, now, good):
    health = Health(counts=InferenceCounts(*before) if before else None)
    assert health.in_good_use(InferenceCounts(*now)) is good
    assert health.counts == InferenceCounts(*now)
