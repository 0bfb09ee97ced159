"""Golden tensors on the Triton that will serve them: infer the recorded inputs, compare with the recorded outputs."""

import secrets
from pathlib import Path
from typing import Any

from gravswell.errors import VerificationError
from gravswell.quiver.signature import data_type_value
from gravswell.serving.agent.failures import ModelFailure
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.contracts import DesiredModel, Reason
from gravswell.serving.golden import Golden, read_golden
from gravswell.serving.samples import joined, pieces, with_rank


def golden_of(model: DesiredModel, folder: Path) -> Golden | None:
    """:func:`read_golden` for ``model``, whose version lies in ``folder``; :class:`ModelFailure` for damaged ones."""
    try:
        return read_golden(folder)
    except VerificationError as error:
        raise ModelFailure(Reason.HASH_MISMATCH, f"version {model.version} of '{model.name}': {error}") from None


async def prove(
    triton: TritonControl,
    config: Any,
    model: str,
    version: int,
    golden: Golden,
    *,
    limit: float,
    exact: bool = True,
) -> None:
    """Run every sample on ``model``; with ``exact`` the outputs must agree too, else any answer will do.

    Each inference may take ``limit`` seconds. ``config`` is what the version published: the ranks of its
    inputs, and how many rows may go together. Where it takes sequences, one of a single request is sent, and any answer
    will do: what is recorded includes what the server fills in itself.
    Raises :class:`VerificationError` for wrong outputs, :class:`~.triton.TritonRefusedError` for an error,
    :class:`~.triton.TritonBusyError` for no answer in time.
    """
    ranks = {tensor.name: len(tensor.dims) + (config.max_batch_size > 0) for tensor in config.input}
    if config.HasField("sequence_batching"):
        row = next(iter(pieces(golden.samples[0].inputs, min(config.max_batch_size, 1))))
        wire = {name: with_rank(row[name], rank) for name, rank in ranks.items()}
        outputs = [tensor.name for tensor in config.output]
        await triton.infer(model, version, wire, outputs, limit=limit, sequence=_new_sequence(config))
        return
    for number, sample in enumerate(golden.samples):
        parts = []
        for inputs in pieces(sample.inputs, config.max_batch_size):
            wire = {name: with_rank(value, ranks.get(name, value.ndim)) for name, value in inputs.items()}
            parts.append(await triton.infer(model, version, wire, list(sample.outputs), limit=limit))
        if exact:
            golden.check(number, joined(parts, sample.outputs))


def _new_sequence(config: Any) -> int | str:
    """An id that no client's sequence has."""
    number = secrets.randbits(31) + 1  # within the 32 bits that an id may be given to the graph in
    kinds = {control.data_type for tensor in config.sequence_batching.control_input for control in tensor.control}
    return f"gravswell-{number}" if data_type_value("TYPE_STRING") in kinds else number
