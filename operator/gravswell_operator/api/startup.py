"""``InferenceServer.status.startup``: where the time of a replica's start went, or goes."""

import enum
from typing import Annotated

from pydantic import Field

from gravswell_operator.api.common import ApiModel

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Stage(enum.StrEnum):
    """What a start goes through."""

    PROVISIONING = "Provisioning"
    """The pod waits for a node."""
    VOLUMES = "Volumes"
    """The node mounts its volumes and makes its network."""
    IMAGE = "Image"
    """The node pulls the images that it lacks, and makes the containers."""
    START = "Start"
    """Triton and the agent start, and whatever else nothing below accounts for."""
    DOWNLOAD = "Download"
    """The agent brings versions from the repository, or from the cache."""
    LOAD = "Load"
    """Triton loads them: for their proof, and for traffic."""
    WARM_UP = "WarmUp"
    """Golden tensors are inferred."""
    READY = "Ready"
    """It is over."""


class StageStatus(ApiModel):
    """One stage of a start."""

    name: Stage
    """Provisioning, Volumes, Image, Start, Download, Load or WarmUp."""
    seconds: Annotated[float, Field(ge=0)]
    """How long it took. Every moment counts for one stage, so all of them together are the whole. The first three are
    differences of the cluster's own times, which are whole seconds."""


class StartupStatus(ApiModel):
    """The start of one replica. While replicas start: of those, the one that has been at it for longest. Afterwards:
    the one that began last, and of several that began in the same second the slowest."""

    pod: Annotated[str, Field(max_length=253)]
    """The replica's pod."""
    started: Time
    """When the pod was created."""
    stage: Stage
    """The present stage; Ready: the replica was ready, and this is how long that took."""
    since: Time
    """When that stage began; with Ready, when the replica was ready."""
    blocker: Annotated[str, Field(max_length=1024)] = ""
    """What it waits for, in words; empty when it is ready."""
    seconds: Annotated[float, Field(ge=0)] | None = None
    """From the creation of the pod until the replica was ready; absent before."""
    downloaded: Annotated[int, Field(ge=0)] = 0
    """Bytes that were downloaded."""
    stages: Annotated[
        tuple[StageStatus, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """The stages that were passed, in order. A restart of a container adds nothing: it is no start of the replica."""
