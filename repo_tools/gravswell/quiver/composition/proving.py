"""A pipeline's version before it is published: run as a server runs it, and compared with what it is to answer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from gravswell.quiver.composition.base import Wishes
from gravswell.quiver.composition.opening import MemberVersion, Sessions, running
from gravswell.quiver.config import ModelConfig
from gravswell.quiver.exporters import Built, Runner
from gravswell.quiver.exporters.base import Inputs, InputSpec, Outputs
from gravswell.quiver.exporters.proof import prove
from gravswell.quiver.exporters.sampling import is_batched
from gravswell.quiver.golden import save_golden
from gravswell.quiver.manifest import GOLDEN, Signature


def proved(
    folder: Path,
    parts: Any,
    signature: Signature,
    members: Sequence[MemberVersion],
    sessions: Sessions,
    *,
    batches: Sequence[Inputs],
    reference: Callable[[Inputs], Outputs],
    wishes: Wishes,
    told: str,
    against: str,
    inputs: Literal["given", "random"],
    exporter: str,
    framework: str,
) -> Built:
    """The version whose files are in ``folder``, once it answers ``batches`` as ``reference`` does; these are kept.

    :param parts: a ``ModelConfig`` with what the version decides of the configuration.
    :param sessions: its ``members`` in ONNX Runtime.
    :param told: what messages call it.
    :param against: what messages and the record call the reference.
    :param inputs: whose the batches are, for the record.
    :param exporter: for the manifest, as ``framework``.
    :raises VerificationError: it answers otherwise.
    """
    records = tuple(member.record for member in members)
    with running(folder, config_of(parts, signature), records, sessions) as run:
        proof = prove(
            Runner(list(signature.inputs), list(signature.outputs), run, told),
            batches,
            reference,
            framework=against,
            inputs=inputs,
            batched=is_batched([InputSpec.of(record) for record in signature.inputs]),
            rows_apart=wishes.max_batch_size > 0,
            rtol=wishes.rtol,
            atol=wishes.atol,
        )
    save_golden(folder / GOLDEN, proof.samples)
    return Built(
        proof,
        max(member.opset for member in members),
        max(member.ir_version for member in members),
        exporter,
        framework,
        members=records,
        parts=parts,
    )


def config_of(parts: Any, signature: Signature) -> Any:
    """What the interpreter of an ensemble needs: its tensors and its steps."""
    config = ModelConfig()
    config.CopyFrom(parts)
    for side, records in (("input", signature.inputs), ("output", signature.outputs)):
        for record in records:
            getattr(config, side).add(name=record.name)
    return config
