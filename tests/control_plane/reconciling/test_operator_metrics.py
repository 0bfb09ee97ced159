"""The metrics of an operator that works: what its documentation says of them, and what they cost."""

from pathlib import Path

from ...exposition import scrape, total

DOCUMENTED = Path(__file__).parents[3] / "docs/operations.md"


def row(family) -> str:
    """The row of the documentation's table for what is served."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    names = {label for sample in family.samples for label in sample.labels} - {"le"}
    labels = "".join(f" {', '.join(f'`{label}`' for label in sorted(names))}" if names else "")
    return f"| `{name}` | {family.type} |{labels} | {family.documentation} |"


def test_what_is_served_is_what_is_documented(world, operator):
    world.make_server()  # without its repository it is never ready
    world.create("v1", "ServiceAccount", "taken-lister")
    world.make_repository("taken")  # and this one fails: a name that it needs is somebody else's
    world.until(lambda: operator.metric("gravswell_reconcile_errors_total", kind="ModelRepository", reason="NameTaken"))
    unready = "gravswell_object_unready_since_timestamp_seconds"
    labels = {"kind": "InferenceServer", "namespace": world.namespace, "reason": "RepositoryNotFound"}
    world.until(lambda: operator.metric(unready, **labels))
    patched = {"verb": "patch", "kind": "InferenceServer/status", "code": "200"}
    world.until(lambda: operator.metric("gravswell_api_requests_total", **patched))  # counted when it is answered
    served = sorted(row(f) for f in scrape(operator.address) if f.name.startswith("gravswell_"))
    table = [line for line in DOCUMENTED.read_text().splitlines() if line.startswith("| `gravswell_")]
    assert served == sorted(table)

    families = scrape(operator.address)
    assert total(families, "gravswell_lease_held") == 1
    for kind in ("GPUNodePool", "ModelRepository", "InferenceServer", "Model", "Node", "Pod", "ServiceAccount"):
        assert total(families, "gravswell_api_requests_total", verb="watch", kind=kind, code="200"), kind
