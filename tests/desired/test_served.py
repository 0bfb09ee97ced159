"""What the operator tells a repository's lister to pin."""

from gravswell.serving.contracts import Desired, DesiredModel, ModelReport, ModelState, RankPart, Report
from gravswell_operator.desired.repository import what_is_served

URL = "gs://bucket/models"


def desired(*models, url=URL):
    return Desired(repository=url, models=tuple(DesiredModel(name=name, version=number) for name, number in models))


def report(*models):
    told = [
        ModelReport(name=name, state=ModelState.LOADING, desired_version=9, loaded_version=loaded)
        for name, loaded in models
    ]
    return Report(pod="p", models=tuple(told))


def test_what_is_wanted_and_what_is_still_loaded():
    served = what_is_served(
        URL,
        [
            (desired(("digits", 4), ("scale", 1)), [report(("digits", 3), ("scale", 1)), report(("digits", 4))]),
            (desired(("digits", 2)), []),
            (desired(("theirs", 7), url="gs://bucket/others"), [report(("digits", 1), ("new", None))]),
            (None, []),
        ],
    )
    assert served.repository == URL
    assert served.entries == {"digits": (1, 2, 3, 4), "scale": (1,)}


def test_a_partition_and_its_parts():
    part = RankPart(name="big-rank-0", version=5, digest="0" * 64, rank=0)
    wanted = Desired(repository=URL, models=(DesiredModel(name="big", version=2, parts=(part,)),))
    assert what_is_served(URL, [(wanted, [report(("big-rank-0", 4))])]).entries == {"big": (2,), "big-rank-0": (4, 5)}


def test_nothing():
    assert what_is_served(URL, []).entries == {}
