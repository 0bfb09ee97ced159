"""The golden batches of a version, as a server is held to them: within what its processors may round.

A GPU from Ampere on computes products of float32 in TF32 unless it is told otherwise: with float16's ten bits, where a
CPU has 23. Every float32 network then answers otherwise than its framework did, by a thousandth of its largest value or
so. That is the hardware's arithmetic and no fault of the version: there it is held to what an fp16 variant promises.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tritonclient.grpc import model_config_pb2

from gravswell.errors import VerificationError
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.golden import Array, Atol, Sample, bounds, column_scales, compare, load_golden
from gravswell.quiver.manifest import GOLDEN, MANIFEST, Manifest, VerificationRecord
from gravswell.serving.members import member_keys

TF32_ERROR = 0.01
"""How far TF32 may take an output, as a share of its largest magnitude: the default of fp16 variants, whose mantissa it
has. On an H100 most networks of ``benchmarks/gpu.py`` used a tenth of that, 24 encoder layers a third."""

_FULL_PRECISION = (
    ". It runs on a GPU, which computes products of float32 in TF32: where the model needs all 23 bits, publish it "
    'with optimization { execution_accelerators { gpu_execution_accelerator { name: "cuda" '
    'parameters { key: "use_tf32" value: "0" } } } }'
)

_OFF = ("0", "false", "False")
"""How ONNX Runtime takes an option that is off."""

_Group: Any = model_config_pb2.ModelInstanceGroup


class Golden(NamedTuple):
    """The samples of one version, and how far a server's outputs may be from them."""

    samples: Sequence[Sample]
    rtol: float | None
    atol: Atol
    scales: Mapping[str, Array]
    """The :func:`~gravswell.quiver.golden.column_scales` of all the version's samples."""
    way_out: str = ""
    """What else to say of outputs that do not agree."""

    @classmethod
    def of(cls, samples: Sequence[Sample], verification: VerificationRecord | None) -> "Golden":
        """As the version's proof has it; without one, by the tolerances of the outputs' types."""
        scales = column_scales([sample.outputs for sample in samples])
        if verification is None:
            return cls(samples, None, None, scales)
        return cls(samples, verification.rtol, verification.atol, scales)

    def on(self, config: Any) -> "Golden":
        """For a server that runs this ``ModelConfig`` and has GPUs; itself where nothing of it is computed in TF32.

        What a user asked for, and what a variant promises, holds on GPUs too. Integers and texts beside scores are the
        scores' consequence, and may flip where two are close to a tie: they are not compared.
        """
        narrow = {name for name, a in self.samples[0].outputs.items() if a.dtype.kind == "f" and a.dtype.itemsize <= 4}
        if not narrow or self.rtol is not None or self.atol is not None or not computes_in_tf32(config):
            return self
        allowed = bounds([sample.outputs for sample in self.samples], TF32_ERROR)
        atol = {name: bound for name, bound in allowed.items() if name in narrow}
        samples = [
            Sample(sample.inputs, {name: a for name, a in sample.outputs.items() if a.dtype.kind == "f"})
            for sample in self.samples
        ]
        return self._replace(samples=samples, atol=atol, way_out=_FULL_PRECISION)

    def smallest(self) -> "Golden":
        """The cheapest sample alone, for probing."""
        size = min(self.samples, key=lambda sample: sum(array.nbytes for array in sample.inputs.values()))
        return self._replace(samples=[size])

    def check(self, number: int, got: Mapping[str, Array]) -> None:
        """Compare a server's answer to sample ``number`` (from 0). VerificationError names what differs."""
        try:
            compare(self.samples[number].outputs, got, self.rtol, self.atol, self.scales)
        except VerificationError as error:
            raise VerificationError(f"golden sample {number}: {error}{self.way_out}") from None


def read_golden(folder: Path) -> Golden | None:
    """The golden tensors of the version in ``folder``; None where it has none."""
    if not (folder / GOLDEN).is_file():
        return None
    samples = load_golden(folder / GOLDEN)
    if not samples:
        return None
    if not (folder / MANIFEST).is_file():
        return Golden.of(samples, None)
    manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes(), where=str(folder / MANIFEST))
    return Golden.of(samples, manifest.verification)


def computes_in_tf32(config: Any) -> bool:
    """Whether a server with GPUs that runs this ``ModelConfig`` may compute products of float32 in TF32.

    Not where all of it runs on CPUs, or its config turns that off (``use_tf32``, an option of ONNX Runtime's CUDA
    provider). A pipeline's members have configs of their own, so it may.
    """
    if is_ensemble(config) or member_keys(config):
        return True
    if config.instance_group and all(group.kind == _Group.KIND_CPU for group in config.instance_group):
        return False
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    return not any(one.name == "cuda" and one.parameters.get("use_tf32") in _OFF for one in accelerators)
