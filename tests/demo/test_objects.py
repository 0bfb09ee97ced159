"""What the demo counts as made by the operator, with a script in kubectl's place, and what it makes of its traffic."""

import json
from pathlib import Path

import pytest

from gravswell.errors import UnavailableError
from gravswell_operator.demo import cluster
from gravswell_operator.demo.objects import children, examples
from gravswell_operator.demo.traffic import Traffic
from gravswell_operator.devcluster.kubectl import Kubectl


def test_each_child_is_counted_once_whoever_it_names(tmp_path: Path) -> None:
    shared = {"kind": "Pod", "metadata": {"uid": "shared"}}
    for owner in ("server=digits", "repository=models", "pool=simulated"):
        items = [shared, {"kind": "ConfigMap", "metadata": {"uid": owner}}]
        (tmp_path / owner).write_text(json.dumps({"items": items}))
    script = tmp_path / "kubectl"
    script.write_text(
        f"""#!/bin/sh
for argument; do
  case "$argument" in --selector=*) cat {tmp_path}/"${{argument##*gravswell.dev/}}" ;; esac
done
"""
    )
    script.chmod(0o755)
    assert children(Kubectl(script), examples()) == {"Pod": 1, "ConfigMap": 3}


def test_one_failed_request_is_enough() -> None:
    seen = Traffic()
    for version in (3, 2, 3):
        seen.note(version)
    assert seen.account() == "no request failed (version 2: 1, version 3: 2)"
    seen.failures.append("connection reset")
    with pytest.raises(UnavailableError, match="1 requests failed, the first with: connection reset"):
        seen.account()


async def test_a_version_that_does_not_answer_is_told_with_what_the_requests_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "ARRIVAL_TIMEOUT", 0.1)
    seen = Traffic()
    with pytest.raises(UnavailableError, match=r"version 2 did not answer within 0 s; kubectl describe mdl says why$"):
        await cluster._first_answer(seen, 2)
    seen.failures.append("connection reset")
    with pytest.raises(UnavailableError, match="the last request that failed said: connection reset"):
        await cluster._first_answer(seen, 2)
