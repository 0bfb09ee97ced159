"""Conditions as they are written: when the time moves, and what becomes an event."""

from gravswell_operator import conditions
from gravswell_operator.api import Condition, ConditionStatus
from gravswell_operator.conditions import Finding, Reason, merge, transitions

EARLIER, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def written(status=ConditionStatus.TRUE, reason=Reason.SERVING, type_=conditions.READY):
    return Condition(type=type_, status=status, reason=reason, message="m", last_transition_time=EARLIER)


def merged(finding, *previous):
    (condition,) = merge(previous, [finding], generation=3, now=NOW)
    return condition


def test_the_time_stays_while_the_status_does():
    condition = merged(Finding(conditions.READY, True, Reason.SCALED_TO_ZERO, "other"), written())
    assert condition.last_transition_time == EARLIER
    assert (condition.reason, condition.message, condition.observed_generation) == ("ScaledToZero", "other", 3)


def test_the_time_moves_with_the_status():
    assert merged(Finding(conditions.READY, False, Reason.STARTING), written()).last_transition_time == NOW
    assert merged(Finding(conditions.READY, None, Reason.STARTING), written()).last_transition_time == NOW
    assert merged(Finding(conditions.READY, True, Reason.SERVING)).last_transition_time == NOW


def test_what_is_not_found_again_is_dropped():
    assert merge([written(type_=conditions.SUSPENDED)], [], generation=1, now=NOW) == ()


def test_long_messages_are_cut():
    assert len(merged(Finding(conditions.READY, True, Reason.SERVING, "x" * 5000)).message) == conditions.MAX_MESSAGE


def test_events_are_for_news():
    assert transitions([written()], [written()]) == []
    (news,) = transitions([written()], [written(ConditionStatus.FALSE, Reason.CRASH_LOOP)])
    assert (news.type, news.reason, news.warning) == ("Ready", "CrashLoop", True)
    (again,) = transitions([written()], [written(ConditionStatus.FALSE, Reason.STARTING)])
    assert not again.warning


def test_that_something_new_starts_is_no_news():
    starting = written(ConditionStatus.FALSE, Reason.STARTING)
    assert transitions([], [starting]) == []
    assert [t.reason for t in transitions([starting], [written()])] == [written().reason]


def test_that_models_are_known_from_the_first_is_no_news():
    known = written(type_=conditions.MODELS_RESOLVED)
    assert transitions([], [known]) == []
    assert [t.type for t in transitions([], [written(), known])] == [conditions.READY]
    (unknown,) = transitions([], [written(ConditionStatus.FALSE, Reason.NO_MODELS, conditions.MODELS_RESOLVED)])
    assert [t.type for t in transitions([written(unknown.status, unknown.reason, unknown.type)], [known])] == [
        conditions.MODELS_RESOLVED
    ]


def test_one_reason_is_one_event():
    both = [written(), written(type_=conditions.ACCESSIBLE), written(type_=conditions.AVAILABLE)]
    assert [t.type for t in transitions([], both)] == [conditions.READY]


def test_one_reason_is_one_event_also_where_the_second_condition_follows_later():
    no, reason = ConditionStatus.FALSE, Reason.NO_MODELS
    models = written(no, reason, conditions.MODELS_RESOLVED)
    starting, waiting = written(no, Reason.STARTING), written(no, reason)
    assert transitions([models, starting], [models, waiting]) == []
    # That it is no longer Ready is news of its own.
    (news,) = transitions([models, written()], [models, waiting])
    assert (news.type, news.reason, news.warning) == ("Ready", "NoModels", False)
