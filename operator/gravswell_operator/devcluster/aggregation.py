"""APIs that a process of this machine serves, behind a control plane's API server: those of metrics, mostly."""

import base64
import json
from pathlib import Path
from typing import Any

from gravswell_operator.devcluster.controlplane import ControlPlane


def register(control_plane: ControlPlane, api: str, place: str, port: int, authority: Path) -> None:
    """Have the API server hand an API on to a process at ``port`` of this machine.

    By a Service that only names another host: endpoints refuse loopback addresses.

    Args:
        control_plane: whose API server.
        api: ``VERSION.GROUP``.
        place: ``SERVICE.NAMESPACE``; the process's certificate is for it, with ``.svc`` behind.
        port: where it listens.
        authority: who issued that certificate, PEM.
    """
    service, _, namespace = place.partition(".")
    version, _, group = api.partition(".")
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": service, "namespace": namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": api},
            "spec": {
                "group": group,
                "version": version,
                "service": {"name": service, "namespace": namespace, "port": port},
                "caBundle": base64.b64encode(authority.read_bytes()).decode(),
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(listed))
    control_plane.kubectl("wait", "--for=condition=Available", "--timeout=60s", f"apiservice/{api}")
