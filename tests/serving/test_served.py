"""What the ConfigMaps between operator and agents say of versions in use; on a real API server in ``control_plane``."""

import pytest

from gravswell.errors import VerificationError
from gravswell.serving.contracts import DESIRED_KEY, Desired, DesiredModel, ModelReport, ModelState, Report
from gravswell.serving.served import _digests

WHERE = "ConfigMap vision/server-report"


def digest(number: int) -> str:
    return f"{number:064x}"


def test_what_is_wanted_reported_and_still_loaded():
    loading = ModelReport(
        name="m",
        state=ModelState.LOADING,
        desired_version=3,
        desired_digest=digest(3),
        loaded_version=2,
        loaded_digest=digest(2),
    )
    theirs = ModelReport(name="theirs", state=ModelState.SERVING, desired_version=1, loaded_version=1)
    desired = Desired(repository="r", models=(DesiredModel(name="m", version=4, digest=digest(4)),))
    data = {DESIRED_KEY: desired.to_json(), "pod-a": Report(pod="pod-a", models=(loading, theirs)).to_json()}
    assert _digests(data, WHERE) == {digest(2), digest(3), digest(4)}
    assert _digests({}, WHERE) == set()


@pytest.mark.parametrize("key", [DESIRED_KEY, "pod-a"])
@pytest.mark.parametrize("text", ["{", "", '{"schema": "gravswell.dev/desired/v2", "repository": "r", "pod": "p"}'])
def test_what_cannot_be_read_may_be_in_use(key: str, text: str):
    with pytest.raises(VerificationError, match=f"{WHERE}, {key} cannot be read .* may name versions in use"):
        _digests({key: text}, WHERE)
