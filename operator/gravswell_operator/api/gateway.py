"""``spec.service.gateway`` of an ``InferenceServer``: which Gateways lead to it, and by which names."""

from typing import Annotated, ClassVar

from pydantic import Field

from gravswell_operator.api.common import ApiModel, DnsLabel, DnsName
from gravswell_operator.api.rules import Rule

Hostname = Annotated[
    str,
    Field(
        pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        min_length=1,
        max_length=253,
    ),
]


class ParentReference(ApiModel):
    """A Gateway that requests come through."""

    name: DnsName
    """Name of the Gateway."""
    namespace: DnsLabel | None = None
    """Namespace of the Gateway, whose listeners must allow routes from the server's; absent: the server's own."""
    section_name: DnsName | None = None
    """One of the Gateway's listeners, by its name; absent: every one that takes such routes."""


class Route(ApiModel):
    """Where requests of one protocol come from."""

    parent_refs: Annotated[
        tuple[ParentReference, ...],
        Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """The Gateways, at most 8."""
    hostnames: Annotated[
        tuple[Hostname, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """Names that clients ask for, such as models.example.com or *.example.com; absent: those of the listeners."""


def _meet(one: ParentReference, other: ParentReference) -> bool:
    """Whether both may be of the same listener."""
    sections = {one.section_name, other.section_name}
    return (one.name, one.namespace) == (other.name, other.namespace) and (None in sections or len(sections) == 1)


class Gateway(ApiModel):
    """How clients outside of the cluster reach the server by the Gateway API."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.http) || has(self.grpc)",
            "gateway needs http, grpc or both: say which requests shall come through it",
            lambda gateway: gateway.http is not None or gateway.grpc is not None,
        ),
    )

    http: Route | None = None
    """For HTTP: an HTTPRoute of the server's name. Absent: none is made."""
    grpc: Route | None = None
    """For gRPC: a GRPCRoute of the server's name. Absent: none is made. A listener gives a hostname to one of the two
    protocols only, so it needs other hostnames than http, or other listeners."""

    @property
    def collides(self) -> bool:
        """Whether both protocols ask for the same hostname of the same listener, which takes one of them only."""
        http, grpc = self.http, self.grpc
        if http is None or grpc is None or not any(_meet(a, b) for a in http.parent_refs for b in grpc.parent_refs):
            return False
        return not (http.hostnames and grpc.hostnames) or bool(set(http.hostnames) & set(grpc.hostnames))
