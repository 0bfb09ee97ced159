"""Google's machines with GPUs: which type of GPU comes in what number with which machine.

Its law: only the standard library. The operator's pure parts ask it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from gravswell.errors import InvalidInputError


class Machine(NamedTuple):
    """A machine, and the GPUs of it."""

    machine_type: str
    """As the cloud names it: ``n1-standard-16``."""
    accelerator: str
    """As the cloud names the GPUs: ``nvidia-tesla-t4``."""
    gpus: int


@dataclass(frozen=True)
class _Attached:
    """A GPU that is attached to a general machine: for each number of them, the most vCPUs beside."""

    accelerator: str
    most_vcpus: Mapping[int, int]

    def machines(self) -> dict[tuple[int, int], str]:
        return {
            (gpus, vcpus): f"n1-standard-{vcpus}"
            for gpus, most in self.most_vcpus.items()
            for vcpus in _N1_VCPUS
            if vcpus <= most
        }


@dataclass(frozen=True)
class _BuiltIn:
    """A GPU that comes with machines of its own: by number of GPUs and vCPUs."""

    accelerator: str
    by_shape: Mapping[tuple[int, int], str]

    def machines(self) -> dict[tuple[int, int], str]:
        return dict(self.by_shape)


_N1_VCPUS = (1, 2, 4, 8, 16, 32, 64, 96)

_TYPES: Mapping[str, _Attached | _BuiltIn] = {
    "k80": _Attached("nvidia-tesla-k80", {1: 8, 2: 16, 4: 32, 8: 64}),
    "p4": _Attached("nvidia-tesla-p4", {1: 24, 2: 48, 4: 96}),
    "p100": _Attached("nvidia-tesla-p100", {1: 16, 2: 32, 4: 64}),
    "v100": _Attached("nvidia-tesla-v100", {1: 12, 2: 24, 4: 48, 8: 96}),
    "t4": _Attached("nvidia-tesla-t4", {1: 48, 2: 48, 4: 96}),
    "l4": _BuiltIn(
        "nvidia-l4",
        {
            **{(1, vcpus): f"g2-standard-{vcpus}" for vcpus in (4, 8, 12, 16, 32)},
            (2, 24): "g2-standard-24",
            (4, 48): "g2-standard-48",
            (8, 96): "g2-standard-96",
        },
    ),
    "a100": _BuiltIn(
        "nvidia-tesla-a100",
        {**{(gpus, 12 * gpus): f"a2-highgpu-{gpus}g" for gpus in (1, 2, 4, 8)}, (16, 96): "a2-megagpu-16g"},
    ),
    "a100-80gb": _BuiltIn("nvidia-a100-80gb", {(gpus, 12 * gpus): f"a2-ultragpu-{gpus}g" for gpus in (1, 2, 4, 8)}),
    "h100": _BuiltIn("nvidia-h100-80gb", {(gpus, 26 * gpus): f"a3-highgpu-{gpus}g" for gpus in (1, 2, 4, 8)}),
    "h100-mega": _BuiltIn("nvidia-h100-mega-80gb", {(8, 208): "a3-megagpu-8g"}),
    "h200": _BuiltIn("nvidia-h200-141gb", {(8, 224): "a3-ultragpu-8g"}),
    "b200": _BuiltIn("nvidia-b200", {(8, 224): "a4-highgpu-8g"}),
}

GPU_TYPES: Mapping[str, str] = MappingProxyType({name: kind.accelerator for name, kind in _TYPES.items()})
"""What people call the GPUs, and what Google does."""


def machine(vcpus: int, gpus: int, gpu_type: str) -> Machine:
    """The machine with these vCPUs and GPUs. ``gpu_type`` is a key or a value of :data:`GPU_TYPES`.

    Raises :class:`InvalidInputError`, a ``ValueError``, for a type that is unknown, a number of GPUs that it does not
    come in, and vCPUs that are no machine's with so many of it. The message names those that are.
    """
    wanted = gpu_type.lower()
    name = next((key for key, accelerator in GPU_TYPES.items() if wanted in {key, accelerator}), None)
    if name is None:
        raise InvalidInputError(f"GPU type {gpu_type!r} is not known; types: {', '.join(GPU_TYPES)}")
    machines = _TYPES[name].machines()
    numbers = sorted({number for number, _ in machines})
    if gpus not in numbers:
        raise InvalidInputError(f"no machine has {gpus} GPUs of type {name}; there are some with {_listed(numbers)}")
    found = machines.get((gpus, vcpus))
    if found is None:
        beside = sorted(vcpus for number, vcpus in machines if number == gpus)
        raise InvalidInputError(
            f"no machine has {vcpus} vCPUs with {gpus} GPU{'s' if gpus != 1 else ''} of type {name}; there are some "
            f"with {_listed(beside)} vCPUs"
        )
    return Machine(found, GPU_TYPES[name], gpus)


_BUILT_IN_VCPUS = {
    machine_type: vcpus
    for kind in _TYPES.values()
    if isinstance(kind, _BuiltIn)
    for (_, vcpus), machine_type in kind.by_shape.items()
}


def vcpus_of(machine_type: str) -> int | None:
    """The vCPUs of a machine, by its name; None where its name does not say."""
    if machine_type in _BUILT_IN_VCPUS:
        return _BUILT_IN_VCPUS[machine_type]
    series, _, rest = machine_type.partition("-")
    if series == "custom":  # an N1 of one's own shape: custom-8-16384
        vcpus = rest.partition("-")[0]
    elif "-custom-" in machine_type:
        vcpus = machine_type.partition("-custom-")[2].partition("-")[0]
    else:  # c3-standard-22-lssd has an end
        vcpus = next((part for part in rest.split("-") if part.isdecimal()), "")
    return int(vcpus) if vcpus.isdecimal() else None


def _listed(numbers: list[int]) -> str:
    *some, last = [str(number) for number in numbers]
    return f"{', '.join(some)} or {last}" if some else last
