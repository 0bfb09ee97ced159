"""The label by which we find again what we made, and keep our hands off what others did."""

import getpass
import re
from typing import Any

from google.cloud import container_v1 as container

OWNER = "gravswell-owner"
"""Google's label (not Kubernetes') on a cluster, and on the machines of a node pool: whose it is."""


def default_owner() -> str:
    """The user's name on this machine, as a label's value may be."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        name = ""
    return label_value(name) or "gravswell"


def label_value(text: str) -> str:
    """``text`` with what a label of Google's does not take left out: 63 of a to z, digits, ``-`` and ``_``."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63]


def labels_of(resource: container.Cluster | container.NodePool) -> dict[str, str]:
    """Google's labels of a cluster, or of a node pool's machines."""
    found: Any = (
        resource.resource_labels if isinstance(resource, container.Cluster) else resource.config.resource_labels
    )
    return dict(found)


def labelled(
    resource: container.Cluster | container.NodePool, labels: dict[str, str]
) -> container.Cluster | container.NodePool:
    """A copy of ``resource`` with these labels too."""
    copy = type(resource)(resource)
    target: Any = copy if isinstance(copy, container.Cluster) else copy.config
    target.resource_labels = {**labels_of(resource), **labels}
    return copy
