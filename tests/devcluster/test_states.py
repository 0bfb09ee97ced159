import copy

import pytest

from gravswell_operator.devcluster.node.states import Facts, State, status


def pod(policy="Always", **spec):
    return {"metadata": {"name": "p"}, "spec": {"restartPolicy": policy, "containers": [], **spec}}


def running(name="c", *, ready=True):
    state = State(name, "image")
    state.run("id")
    state.started, state.ready = True, ready
    return state


def ended(code, name="c"):
    state = running(name)
    state.end(code)
    return state


def crashing():
    state = ended(1)
    state.wait("CrashLoopBackOff", "")
    return state


def waiting(name="c"):
    return State(name, "image")


def conditions(result):
    return {c["type"]: c for c in result["conditions"]}


@pytest.mark.parametrize(
    ("policy", "states", "phase"),
    [
        ("Always", [running()], "Running"),
        ("Always", [running(), waiting("d")], "Pending"),
        ("Always", [crashing()], "Running"),
        ("Always", [ended(0)], "Running"),
        ("OnFailure", [ended(0)], "Succeeded"),
        ("OnFailure", [ended(1)], "Running"),
        ("Never", [ended(0), ended(0, "d")], "Succeeded"),
        ("Never", [ended(0), ended(2, "d")], "Failed"),
        ("Never", [ended(2), running("d")], "Running"),
    ],
)
def test_the_phase_follows_from_the_containers(policy, states, phase):
    assert status(Facts(pod(policy), states, initialized=True))["phase"] == phase


def test_nothing_is_ready_before_the_init_containers_are_done():
    specs = [{"name": "i"}]
    result = status(Facts(pod(initContainers=specs), [waiting()], [running("i")], address="127.64.0.1"))
    assert result["phase"] == "Pending"
    assert conditions(result)["Initialized"]["status"] == "False"
    assert conditions(result)["Initialized"]["message"] == "containers with incomplete status: [i]"
    assert conditions(result)["PodReadyToStartContainers"]["status"] == "True"


def test_an_init_container_that_failed_for_good_fails_the_pod():
    result = status(Facts(pod("Never", initContainers=[{"name": "i"}]), [waiting()], [ended(1, "i")]))
    assert result["phase"] == "Failed"


def test_one_container_that_is_not_ready_makes_the_pod_unready():
    result = status(Facts(pod(), [running(), running("slow", ready=False)], initialized=True))
    assert conditions(result)["Ready"]["status"] == "False"
    assert conditions(result)["Ready"]["message"] == "containers with unready status: [slow]"


def test_a_readiness_gate_holds_the_pod_back():
    document = pod(readinessGates=[{"conditionType": "example.com/ok"}])
    result = status(Facts(document, [running()], initialized=True))
    assert conditions(result)["ContainersReady"]["status"] == "True"
    assert conditions(result)["Ready"]["reason"] == "ReadinessGatesNotReady"
    document["status"] = {"conditions": [{"type": "example.com/ok", "status": "True"}]}
    assert conditions(status(Facts(document, [running()], initialized=True)))["Ready"]["status"] == "True"


def test_transition_times_move_only_with_the_status():
    document = pod()
    first = status(Facts(document, [running(ready=False)], initialized=True, now="T1"))
    document["status"] = copy.deepcopy(first)
    second = status(Facts(document, [running()], initialized=True, now="T2"))
    times = {kind: c["lastTransitionTime"] for kind, c in conditions(second).items()}
    assert (times["Initialized"], times["Ready"]) == ("T1", "T2")


def test_a_restart_keeps_how_the_last_run_ended():
    state = ended(3)
    state.wait("CrashLoopBackOff", "back-off")
    state.run("id2")
    described = status(Facts(pod(), [state], initialized=True))["containerStatuses"][0]
    assert described["lastState"]["terminated"]["exitCode"] == 3
    assert "running" in described["state"]
