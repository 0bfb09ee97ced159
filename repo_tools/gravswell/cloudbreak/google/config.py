"""Node pools' configurations with GPUs."""

from typing import Any

from google.cloud import container_v1 as container

from gravswell.cloudbreak.machines import machine

NODE_SCOPES = (
    "https://www.googleapis.com/auth/devstorage.read_only",  # model repositories in buckets, and images
    "https://www.googleapis.com/auth/logging.write",
    "https://www.googleapis.com/auth/monitoring",
)


def create_gpu_node_pool_config(vcpus: int, gpus: int, gpu_type: str, **options: Any) -> container.NodeConfig:
    """The configuration of nodes with ``vcpus`` and ``gpus`` of ``gpu_type`` (``t4``, ``l4``, ``a100``…) each.

    GKE installs the driver that it has for the type. ``options`` are further fields of Google's ``NodeConfig``, such as
    ``spot=True`` or ``disk_size_gb=200``, and go before ours. Raises as :func:`gravswell.cloudbreak.machines.machine`:
    a ``ValueError`` for what no machine has.
    """
    found = machine(vcpus, gpus, gpu_type)
    ours = {
        "machine_type": found.machine_type,
        "accelerators": [accelerator(found.accelerator, found.gpus)],
        "oauth_scopes": list(NODE_SCOPES),
    }
    return container.NodeConfig(**{**ours, **options})


def accelerator(kind: str, count: int) -> container.AcceleratorConfig:
    """``count`` GPUs, named as Google does, with the driver that GKE has for them."""
    drivers = container.GPUDriverInstallationConfig(
        gpu_driver_version=container.GPUDriverInstallationConfig.GPUDriverVersion.DEFAULT
    )
    return container.AcceleratorConfig(
        accelerator_count=count, accelerator_type=kind, gpu_driver_installation_config=drivers
    )
