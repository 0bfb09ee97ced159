import pytest

from gravswell.errors import InvalidInputError
from gravswell_operator.devcluster.node.probes import Thresholds, port_of

CONTAINER = {"name": "c", "ports": [{"name": "http", "containerPort": 8000}]}


@pytest.mark.parametrize(("reference", "port"), [(80, 80), ("80", 80), ("http", 8000)])
def test_ports_by_number_and_name(reference, port):
    assert port_of(reference, CONTAINER) == port


def test_an_unknown_port_name_is_named():
    with pytest.raises(InvalidInputError, match="no port named 'grpc'"):
        port_of("grpc", CONTAINER)


@pytest.mark.parametrize(
    ("probe", "outcomes", "verdicts"),
    [
        ({}, "+---+", [True, None, None, False, True]),
        ({"failureThreshold": 1}, "-+-", [False, True, False]),
        ({"successThreshold": 2}, "+-++", [None, None, None, True]),
        ({"failureThreshold": 2}, "-+--", [None, True, None, False]),
    ],
)
def test_verdicts_need_a_row_of_equal_outcomes(probe, outcomes, verdicts):
    counted = Thresholds(probe)
    assert [counted.update(outcome == "+") for outcome in outcomes] == verdicts
