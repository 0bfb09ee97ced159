"""That the benchmark of a tuned ensemble says when its bar is missed."""

from types import ModuleType


def test_the_costlier_member_is_to_have_more_instances(benchmark: ModuleType) -> None:
    figures = {"members": ["denoise", "classify"], "chosen": [2, 1], "unequal": True}
    assert benchmark.missed(figures) == []
    assert benchmark.missed(figures | {"chosen": [1, 1], "unequal": False}) == [
        "instances of denoise and classify: 1 and 1, and the bar is more of denoise"
    ]
