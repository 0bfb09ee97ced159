"""Golden pairs: the manifests that a user applies, and every object that follows from them, field by field.

After a change that is meant: ``GRAVSWELL_UPDATE_GOLDEN=1 pytest tests/desired/test_golden.py``, and read the diff.
"""

import os
from pathlib import Path

import pytest
import yaml

from gravswell_operator.api.manifest import parse
from gravswell_operator.desired.objects import Options
from gravswell_operator.plan import plan

GOLDEN = Path(__file__).parent / "golden"
INPUTS = sorted(GOLDEN.glob("*.input.yaml"))
OPTIONS = Options(image="registry.example/gravswell:1")


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.name.removesuffix(".input.yaml"))
def test_objects(path):
    resources = [parse(document) for document in yaml.safe_load_all(path.read_text())]
    made = [manifest for planned in plan(resources, OPTIONS).objects for manifest in planned.children]
    expected = path.with_name(path.name.replace(".input.", ".expected."))
    if os.environ.get("GRAVSWELL_UPDATE_GOLDEN"):
        expected.write_text(yaml.safe_dump_all(made, sort_keys=False, width=120, default_flow_style=None))
    assert made == list(yaml.safe_load_all(expected.read_text()))


def test_the_same_manifests_give_the_same_objects():
    """What is applied is compared by digest, so it must not depend on anything but the manifests."""
    resources = [parse(document) for document in yaml.safe_load_all(INPUTS[0].read_text())]
    assert plan(resources, OPTIONS) == plan(resources, OPTIONS)
