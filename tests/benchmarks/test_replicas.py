"""That the benchmark of replicas says where their rate is not in proportion."""

from types import ModuleType


def test_each_number_of_replicas_and_each_kind_of_client_is_held_to_the_bar(benchmark: ModuleType) -> None:
    rows = [
        {"replicas": 1, "balancedInProportion": 1.0, "plainInProportion": 1.0},
        {"replicas": 2, "balancedInProportion": 0.9, "plainInProportion": 0.5},
        {"replicas": 4, "balancedInProportion": 0.25, "plainInProportion": 1.1},
    ]
    assert benchmark.missed(rows[:1]) == []
    assert benchmark.missed(rows) == [
        "2 replicas, plain: in proportion: 0.5, and the bar is at least 0.9",
        "4 replicas, balanced: in proportion: 0.25, and the bar is at least 0.9",
    ]
