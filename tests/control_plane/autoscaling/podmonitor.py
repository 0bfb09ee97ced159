"""What a cluster's Prometheus does by a PodMonitor, for one that cannot ask an API server, as Debian's cannot.

Two things become files here: the pods as Prometheus finds them (``kubernetes_sd_configs`` of the role ``pod``), and the
configuration that the Prometheus operator writes for the PodMonitor.
"""

import re
from pathlib import Path
from typing import Any

_META = "__meta_kubernetes"
_FIELDS = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
"""Of a relabeling, what Prometheus calls what the PodMonitor calls so."""


def targets(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every declared port of every pod that has an address, with what is known of it, for ``file_sd_configs``."""
    found: list[dict[str, Any]] = []
    for pod in pods:
        address = pod["status"].get("podIP")
        containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
        for container in containers if address else ():
            for port in container.get("ports", ()):
                labels = {**_of_pod(pod), f"{_META}_pod_container_name": container["name"]}
                labels[f"{_META}_pod_container_port_name"] = port.get("name", "")
                found.append({"targets": [f"{address}:{port['containerPort']}"], "labels": labels})
    return found


def _of_pod(pod: dict[str, Any]) -> dict[str, str]:
    metadata = pod["metadata"]
    labels = {
        f"{_META}_namespace": metadata["namespace"],
        f"{_META}_pod_name": metadata["name"],
        f"{_META}_pod_phase": pod["status"].get("phase", ""),
    }
    for name, value in metadata.get("labels", {}).items():
        labels[f"{_META}_pod_label_{_sanitized(name)}"] = value
        labels[f"{_META}_pod_labelpresent_{_sanitized(name)}"] = "true"
    return labels


def scrape_configs(monitor: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    """One for each endpoint of a PodMonitor of all namespaces, whose targets are in ``file``.

    Fields that this project's PodMonitor does not have are not known here, and refused.
    """
    metadata, spec = monitor["metadata"], monitor["spec"]
    assert spec.keys() == {"namespaceSelector", "selector", "podMetricsEndpoints"}
    assert spec["namespaceSelector"] == {"any": True}
    assert spec["selector"].keys() == {"matchLabels"}
    name = f"{metadata['namespace']}/{metadata['name']}"
    chosen = [_kept(label, value) for label, value in spec["selector"]["matchLabels"].items()]
    configs: list[dict[str, Any]] = []
    for number, endpoint in enumerate(spec["podMetricsEndpoints"]):
        assert endpoint.keys() == {"port", "interval", "relabelings"}
        relabelings: list[dict[str, Any]] = [
            *chosen,
            {"action": "drop", "source_labels": [f"{_META}_pod_phase"], "regex": "(Failed|Succeeded)"},
            {"action": "keep", "source_labels": [f"{_META}_pod_container_port_name"], "regex": endpoint["port"]},
            {"source_labels": [f"{_META}_namespace"], "target_label": "namespace"},
            {"source_labels": [f"{_META}_pod_container_name"], "target_label": "container"},
            {"source_labels": [f"{_META}_pod_name"], "target_label": "pod"},
            {"target_label": "job", "replacement": name},
            {"target_label": "endpoint", "replacement": endpoint["port"]},
            *({_FIELDS[field]: value for field, value in own.items()} for own in endpoint["relabelings"]),
        ]
        configs.append(
            {
                "job_name": f"podMonitor/{name}/{number}",
                "scrape_interval": endpoint["interval"],
                "scrape_timeout": endpoint["interval"],
                "file_sd_configs": [{"files": [str(file)], "refresh_interval": "1s"}],
                "relabel_configs": relabelings,
            }
        )
    return configs


def _kept(label: str, value: str) -> dict[str, Any]:
    of_pod = [f"{_META}_pod_{what}_{_sanitized(label)}" for what in ("label", "labelpresent")]
    return {"action": "keep", "source_labels": of_pod, "regex": f"({re.escape(value)});true"}


def _sanitized(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
