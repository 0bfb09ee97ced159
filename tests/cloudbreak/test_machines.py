"""Which machines there are with GPUs, and what is said about those that are not."""

import pytest

from gravswell.cloudbreak import google as cb
from gravswell.cloudbreak.machines import machine, vcpus_of


@pytest.mark.parametrize(
    ("vcpus", "gpus", "gpu_type", "machine_type", "accelerator"),
    [
        (16, 4, "t4", "n1-standard-16", "nvidia-tesla-t4"),
        (16, 4, "nvidia-tesla-t4", "n1-standard-16", "nvidia-tesla-t4"),
        (96, 8, "v100", "n1-standard-96", "nvidia-tesla-v100"),
        (24, 2, "L4", "g2-standard-24", "nvidia-l4"),
        (48, 4, "a100", "a2-highgpu-4g", "nvidia-tesla-a100"),
        (208, 8, "h100", "a3-highgpu-8g", "nvidia-h100-80gb"),
    ],
)
def test_the_machine_of_a_shape(vcpus: int, gpus: int, gpu_type: str, machine_type: str, accelerator: str) -> None:
    assert machine(vcpus, gpus, gpu_type) == (machine_type, accelerator, gpus)
    assert vcpus_of(machine_type) == vcpus


@pytest.mark.parametrize(
    ("vcpus", "gpus", "gpu_type", "words"),
    [
        (
            15,
            4,
            "t4",
            "no machine has 15 vCPUs with 4 GPUs of type t4; there are some with 1, 2, 4, 8, 16, 32, 64 or 96",
        ),
        (96, 1, "t4", "no machine has 96 vCPUs with 1 GPU of type t4"),
        (16, 3, "t4", "no machine has 3 GPUs of type t4; there are some with 1, 2 or 4"),
        (16, 0, "t4", "no machine has 0 GPUs"),
        (16, 4, "t5", "GPU type 't5' is not known; types: k80, p4"),
        (12, 2, "a100", "12 vCPUs with 2 GPUs of type a100; there are some with 24 vCPUs"),
    ],
)
def test_what_no_machine_has_is_a_value_error(vcpus: int, gpus: int, gpu_type: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cb.create_gpu_node_pool_config(vcpus=vcpus, gpus=gpus, gpu_type=gpu_type)


def test_the_configuration_has_its_driver_and_what_else_is_asked_for() -> None:
    config = cb.create_gpu_node_pool_config(vcpus=16, gpus=4, gpu_type="t4", spot=True, disk_size_gb=200)
    accelerator = config.accelerators[0]
    assert (accelerator.accelerator_count, accelerator.accelerator_type) == (4, "nvidia-tesla-t4")
    assert accelerator.gpu_driver_installation_config.gpu_driver_version.name == "DEFAULT"
    assert (config.spot, config.disk_size_gb) == (True, 200)


@pytest.mark.parametrize(
    ("machine_type", "vcpus"),
    [
        ("e2-standard-4", 4),
        ("custom-8-16384", 8),
        ("n2-custom-6-20480", 6),
        ("c3-standard-22-lssd", 22),
        ("e2-medium", None),
    ],
)
def test_the_vcpus_that_a_name_says(machine_type: str, vcpus: int | None) -> None:
    assert vcpus_of(machine_type) == vcpus
