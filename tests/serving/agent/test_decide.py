"""The agent's decisions, as tables."""

import pytest

from gravswell.serving.agent.decide import (
    Facts,
    Step,
    identity,
    next_step,
    stale_stages,
    to_collect,
    to_unload,
)
from gravswell.serving.agent.loadconfig import Loaded, load_key
from gravswell.serving.contracts import Desired, DesiredModel, Verification

D1, D2 = "1" * 64, "2" * 64
ONE = DesiredModel(name="m", version=1, digest=D1)
TWO = DesiredModel(name="m", version=2, digest=D2)
HASHES = DesiredModel(name="m", version=2, digest=D2, verification=Verification.HASHES)
THEIRS = DesiredModel(name="m", version=3, verification=Verification.NONE)


def loaded(model: DesiredModel, *, cpu_only: bool = False) -> Loaded:
    return Loaded(model.version, model.digest, load_key(model, cpu_only=cpu_only))


STEPS = {
    "nothing is here": (TWO, Facts(), Step.FETCH),
    "fetched": (TWO, Facts(staged={D2}), Step.VERIFY),
    "fetched, only hashes are demanded": (HASHES, Facts(staged={D2}), Step.LOAD),
    "fetched and verified": (TWO, Facts(staged={D2}, verified={D2}), Step.LOAD),
    "placed and verified: a roll-back": (TWO, Facts(placed={2: D2}, verified={D2}), Step.LOAD),
    "placed, verified by another Triton": (TWO, Facts(placed={2: D2}), Step.VERIFY),
    "placed under the number, other content": (TWO, Facts(placed={2: D1}, verified={D1}), Step.FETCH),
    "loaded, not yet asked": (TWO, Facts(loaded=loaded(TWO)), Step.PROVE),
    "loaded and answers": (TWO, Facts(loaded=loaded(TWO), proven=True), Step.NONE),
    "loaded, the proof failed: it is the desired one, so again": (
        TWO,
        Facts(loaded=loaded(TWO), proof_tried=True),
        Step.PROVE,
    ),
    "loaded for another device": (
        TWO,
        Facts(loaded=loaded(TWO), proven=True, placed={2: D2}, verified={D2}, cpu_only=True),
        Step.LOAD,
    ),
    "loaded with other instances": (
        TWO.model_copy(update={"instances": 2}),
        Facts(loaded=loaded(TWO), proven=True, placed={2: D2}, verified={D2}),
        Step.LOAD,
    ),
    "the earlier one is loaded": (TWO, Facts(loaded=loaded(ONE), proven=True, placed={1: D1}), Step.FETCH),
    "the earlier one was found after a restart: it shall count": (
        TWO,
        Facts(loaded=loaded(ONE), placed={1: D1}),
        Step.PROVE,
    ),
    "the earlier one was found and does not answer": (
        TWO,
        Facts(loaded=loaded(ONE), placed={1: D1}, proof_tried=True),
        Step.FETCH,
    ),
    "somebody else loaded something": (TWO, Facts(loaded=Loaded(2, None, None)), Step.FETCH),
    "Triton is empty, the desired one is not here, the last good one is": (
        TWO,
        Facts(placed={1: D1}, last_good=ONE),
        Step.RESTORE,
    ),
    "Triton is empty, the desired one is here and was never verified": (
        TWO,
        Facts(placed={1: D1}, staged={D2}, last_good=ONE),
        Step.RESTORE,
    ),
    "Triton is empty, the desired one can be loaded at once": (
        TWO,
        Facts(placed={1: D1, 2: D2}, verified={D2}, last_good=ONE),
        Step.LOAD,
    ),
    "Triton is empty, the last good one does not load either": (
        TWO,
        Facts(placed={1: D1}, last_good=ONE, restorable=False),
        Step.FETCH,
    ),
    "Triton is empty, the last good one is the desired one": (
        TWO,
        Facts(placed={2: D2}, last_good=TWO),
        Step.VERIFY,
    ),
    "Triton is empty, the last good one was collected": (TWO, Facts(last_good=ONE), Step.FETCH),
    "a pipeline whose member is not here": (TWO, Facts(staged={D2}, lacking=True, verified={D2}), Step.FETCH),
    "a version of others": (THEIRS, Facts(staged={identity(THEIRS)}), Step.LOAD),
}


@pytest.mark.parametrize(("model", "facts", "step"), STEPS.values(), ids=STEPS.keys())
def test_next_step(model: DesiredModel, facts: Facts, step: Step):
    assert next_step(model, facts) is step


def test_identity_tells_contents_apart():
    assert identity(ONE) == D1
    others = {identity(THEIRS.model_copy(update=change)) for change in ({}, {"version": 4}, {"name": "n"})}
    assert len(others) == 3
    assert all(name.startswith("unverified-") for name in others)


def test_to_unload_spares_private_names():
    desired = Desired(repository="r", models=(ONE,))
    assert to_unload(desired, ["m", "old", "gravswell-proof-abc", "another"]) == ["another", "old"]


@pytest.mark.parametrize(
    ("desired", "serves", "placed", "recent", "gone"),
    [
        pytest.param([TWO], 2, [1, 2], [2, 1], [], id="the one before stays"),
        pytest.param([TWO], 2, [1, 2, 3], [2, 3, 1], [1], id="only the one before"),
        pytest.param([TWO], 1, [1, 2, 3], [1, 3], [3], id="desired and loaded fill both places"),
        pytest.param([TWO], 1, [1, 3], [1, 3], [], id="the desired one is not here: it takes no place"),
        pytest.param([TWO], None, [1, 3], [1, 3], [], id="Triton is empty: what may be restored stays"),
        pytest.param([], 1, [1, 2], [1, 2], [2], id="no longer desired, still loaded"),
        pytest.param([], None, [1, 2], [1, 2], [1, 2], id="no longer desired"),
    ],
)
def test_to_collect(desired, serves, placed, recent, gone):
    loads = {"m": Loaded(serves, None, None)} if serves else {}
    here = {"m": {number: str(number) * 64 for number in placed}}
    found = to_collect(Desired(repository="r", models=tuple(desired)), loads, here, {"m": recent})
    assert found == [("m", number) for number in gone]


def test_what_pipelines_are_made_of_stays():
    none = Desired(repository="r")
    assert to_collect(none, {}, {"m": {1: D1, 2: D2}}, {}, members={D1}) == [("m", 2)]
    assert stale_stages(none, [D1, D2], members={D1}) == [D2]


def test_stale_stages():
    assert stale_stages(Desired(repository="r", models=(TWO,)), [D1, D2]) == [D1]
