"""A container of our own image beside Triton or alone: the agent and the lister, where they are the same."""

from collections.abc import Sequence

from gravswell.logs import LogFormat
from gravswell_operator import names
from gravswell_operator.desired.objects import (
    TOKEN_FOLDER,
    Manifest,
    Options,
    field_env,
    http_probe,
    own_container_security,
    scratch_env,
    scratch_mount,
)
from gravswell_operator.desired.source import Source


def agent_container(
    name: str, arguments: Sequence[str], where: Source, options: Options, mounts: Sequence[Manifest] = ()
) -> Manifest:
    """``gravswell agent`` with ``arguments``: it reads the repository ``where``, and answers probes on its port.

    It has the ServiceAccount's token, and writes to nothing but its mounts: ``mounts``, and a scratch folder.
    """
    command, *options_of_it = arguments
    if options.agent_log_format is not LogFormat.TEXT:
        options_of_it += ["--log-format", options.agent_log_format.value]
    container: Manifest = {
        "name": name,
        "image": options.image,
        "command": ["gravswell", "agent", command],
        "args": ["--repository", where.url, *options_of_it],
        "env": [
            field_env("POD_IP", "status.podIP"),
            field_env("POD_NAME", "metadata.name"),
            field_env("POD_NAMESPACE", "metadata.namespace"),
            scratch_env(),
            *where.env,
        ],
        "ports": [{"name": "agent", "containerPort": names.PORT_AGENT, "protocol": "TCP"}],
        # Every second, as it is a part of each cold start; ten refusals in a row take a replica out of service.
        "readinessProbe": http_probe("/readyz", "agent", period=1, timeout=5, failures=10),
        "livenessProbe": http_probe("/livez", "agent", period=20, timeout=10, failures=6),
        "securityContext": own_container_security(),
        "volumeMounts": [
            *mounts,
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            scratch_mount(),
            *where.mounts,
        ],
    }
    if where.env_from:
        container["envFrom"] = where.env_from
    return container
