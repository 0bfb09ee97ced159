"""A write is for the object that was looked at, and for no other that somebody puts in its place meanwhile.

That an API server takes a uid for this is shown on a real one: ``tests/control_plane/reconciling/test_forgeries.py``.
"""

from gravswell.kube import errors
from gravswell_operator.cluster import resources


async def test_what_was_put_in_the_place_of_a_child_is_not_written(served):
    await served.settle()
    service = served.get("Service", "server")
    apply, sent = served.api.apply, []

    async def apply_after_somebody_else(resource, manifest, **options):
        """Their Service takes the name just before our apply arrives; an API server refuses that then."""
        if resource is resources.SERVICE and manifest["metadata"]["name"] == "server":
            sent.append(manifest["metadata"].get("uid"))
            theirs = {**service, "metadata": {"name": "server", "namespace": "ns", "uid": "theirs"}}
            served.api.objects["Service", "ns", "server"] = theirs
            if sent[-1] != "theirs":
                raise errors.ApiConflictError("the uid in the precondition is not that of the object")
        return await apply(resource, manifest, **options)

    served.api.apply = apply_after_somebody_else
    served.see(resources.SERVICE, {**service, "spec": {**service["spec"], "type": "NodePort"}})
    await served.settle()
    assert sent
    assert set(sent) == {service["metadata"]["uid"]}
    assert served.get("Service", "server")["metadata"]["uid"] == "theirs"
    assert "ownerReferences" not in served.get("Service", "server")["metadata"]
