"""The proof: the exported file, run in ONNX Runtime, answers as the framework does, at every batch size."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from gravswell.errors import ExportError, GravswellError, VerificationError
from gravswell.quiver.datatypes import from_runtime
from gravswell.quiver.exporters.base import Assumption, Inputs, Outputs, answered, described
from gravswell.quiver.exporters.beyond import Beyond
from gravswell.quiver.exporters.files import DATA_FILE
from gravswell.quiver.exporters.sampling import rows_of
from gravswell.quiver.golden import Atol, Sample, column_scales, compare
from gravswell.quiver.manifest import OutputError, Signature, TensorRecord, VerificationRecord

Agree = Callable[[Outputs, Outputs], object]
"""Raises VerificationError where the second outputs are not those of the first."""

GOLDEN_BYTES = 32 << 20
"""Samples are kept with the version up to this size, and the first one always."""

_REAL_ROWS = (
    ". The inputs were made up: where the model is never given such values, prove it with real ones, as sample_inputs "
    "(--sample-inputs FILE.npz)"
)
_ROUNDING = ". If the difference is rounding, as of a deep model's sums, allow for it: atol or rtol (--atol, --rtol)"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved: the graph's own signature, the samples, and how far the outputs were apart."""

    signature: Signature
    samples: list[Sample]
    record: VerificationRecord
    batchable: bool
    """Every input and output leads with the batch, at every size that was tried."""


def cpu_session(given: str | bytes, *, as_written: bool = False, mapped: bool = False) -> ort.InferenceSession:
    """ONNX Runtime on the CPU with a file, by its path, or with a model's bytes. Raises whatever it raises itself.

    ``as_written``: it computes each node as it stands, and optimizes nothing. ``mapped``: weights that lie in files
    beside the model's stay there, and are mapped: a copy that is laid out for faster products would be as large.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if mapped:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def open_session(path: Path, *, mapped: bool = False) -> ort.InferenceSession:
    """ONNX Runtime on the CPU with that file of a version. ExportError when it does not take it.

    ``mapped``: weights that lie in the data file beside it stay there, for who asks a few times and times nothing.
    """
    try:
        return cpu_session(str(path), mapped=mapped and path.with_name(DATA_FILE).is_file())
    except Exception as error:  # ONNX Runtime's own errors share no base
        raise ExportError(
            f"ONNX Runtime {ort.__version__} does not load the exported graph: {described(error)}; "
            f"it uses an operator or a type that the server would not load either"
        ) from error


def session_inputs(session: ort.InferenceSession, optional: Collection[str] = ()) -> list[TensorRecord]:
    """The graph's inputs. ExportError names one that no Triton tensor can hold.

    ``optional``: those with a value of their own that a request may give in its place; others count as weights.
    """
    own = [node for node in session.get_overridable_initializers() if node.name in optional]
    given = [_servable(node, "input").model_copy(update={"optional": True}) for node in own]
    return [_servable(node, "input") for node in session.get_inputs()] + given


def session_outputs(session: ort.InferenceSession) -> list[TensorRecord]:
    """The graph's outputs, likewise."""
    return [_servable(node, "output") for node in session.get_outputs()]


def as_record(node: ort.NodeArg) -> TensorRecord | None:
    """An input or output of a session; None for what no Triton tensor can hold."""
    data_type = from_runtime(node.type)
    if data_type is None:
        return None
    dims = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    return TensorRecord(name=node.name, data_type=data_type, dims=dims)


def _servable(node: ort.NodeArg, side: str) -> TensorRecord:
    record = as_record(node)
    if record is None:
        raise ExportError(
            f"{side} {node.name!r} is a {node.type}: Triton serves plain tensors of numbers, booleans and strings; "
            f"have the model take or return those"
        )
    return record


def run(session: ort.InferenceSession, inputs: Inputs) -> Outputs:
    """One inference. Inputs that the graph does not have are left out: exporters drop unused ones."""
    names = [node.name for node in session.get_outputs()]
    optional = [node for node in session.get_overridable_initializers() if node.name in inputs]
    feed = {
        node.name: inputs[node.name].astype(object) if node.type == "tensor(string)" else inputs[node.name]
        for node in (*session.get_inputs(), *optional)
    }
    return dict(zip(names, session.run(names, feed), strict=True))


@dataclass(frozen=True, slots=True)
class Runner:
    """What answers batches, and is proved: a graph in ONNX Runtime, or a pipeline of several."""

    inputs: list[TensorRecord]
    outputs: list[TensorRecord]
    run: Callable[[Inputs], Outputs]
    """One inference; inputs that it does not have are left out. Raises whatever the runtime raises."""
    told: str = "the exported graph"

    @classmethod
    def of(cls, session: ort.InferenceSession, optional: Collection[str] = ()) -> "Runner":
        """The graph of a session, and which of its inputs are ``optional``.

        ExportError names an input or output that no Triton tensor can hold.
        """
        return cls(session_inputs(session, optional), session_outputs(session), partial(run, session))


def prove(
    runner: Runner,
    batches: Sequence[Inputs],
    reference: Callable[[Inputs], Outputs],
    *,
    framework: str,
    inputs: Literal["given", "random"],
    batched: bool,
    rows_apart: bool,
    rtol: float | None,
    atol: Atol,
    ailing: Callable[[], str] = str,
    beyond: Sequence[Assumption] = (),
) -> Proof:
    """Run it on ``batches`` and compare with ``reference``.

    ``inputs``: whose the batches are, for the record. ``batched``: the first dim was declared dynamic, so each size
    must run. ``rows_apart``: also prove that a row's answer does not depend on the rows beside it, which a server that
    mixes requests into batches needs. ``ailing``: what is wrong with the model, for the message that it says nothing.
    ``beyond``: what the exporter took for granted of the inputs' sizes.
    """
    taken = runner.inputs
    names = {record.name for record in taken}
    answers = [_run_batch(runner, batch, batched) for batch in batches]
    wanted = [_in_types_of(got, answered(reference, batch)) for batch, got in zip(batches, answers, strict=True)]
    _check_says_something(wanted, ailing)
    scales = column_scales(wanted)
    agree = partial(compare, rtol=rtol, atol=atol, scales=scales)
    _prove_repeatable(runner, batches[0], answers[0], agree)  # first: chance explains every other difference

    def agree_beyond(expected: Outputs, got: Outputs) -> None:  # a batch of other sizes is too small to judge by itself
        own = _in_types_of(got, expected)
        compare(own, got, rtol, atol, column_scales([scales, own]))

    elsewhere = Beyond(reference, runner.run, agree_beyond, batches, wanted[0], given=inputs == "given")
    within = [a.condition for a in beyond if not elsewhere.proves(a)]  # explains differences that other sizes make
    samples: list[Sample] = []
    errors: dict[str, OutputError] = {}
    for batch, got, expected in zip(batches, answers, wanted, strict=True):
        rows = f"at a batch of {rows_of(batch)}: " if batched else ""
        try:
            found = compare(expected, got, rtol, atol, scales)
        except VerificationError as error:
            way_out = _ROUNDING if inputs == "given" else _REAL_ROWS + _ROUNDING
            raise VerificationError(
                f"{runner.told} does not answer as {framework} does: {rows}{error}; nothing was published{way_out}"
            ) from None
        errors = largest(errors, found)
        samples.append(Sample({k: v for k, v in batch.items() if k in names}, expected))
    outputs = [_observed(record, [answer[record.name] for answer in answers]) for record in runner.outputs]
    batchable = batched and all(r.dims[:1] == (-1,) for r in (*taken, *outputs)) and _leads(batches, answers)
    if rows_apart and batchable:
        _prove_rows_apart(runner, max(batches, key=rows_of), agree)
    record = VerificationRecord(
        reference=framework,
        inputs=inputs,
        samples=len(samples),
        batch_sizes=tuple(sorted({rows_of(batch) for batch in batches})) if batched else (),
        shapes=tuple({name: array.shape for name, array in batch.items() if name in names} for batch in batches),
        rtol=rtol,
        atol=dict(atol) if isinstance(atol, Mapping) else atol,
        errors=errors,
        within=tuple(within),
    )
    signature = Signature(inputs=tuple(taken), outputs=tuple(outputs))
    return Proof(signature, _affordable(samples), record, batchable)


def _run_batch(runner: Runner, batch: Inputs, batched: bool) -> Outputs:
    try:
        return runner.run(batch)
    except GravswellError:  # of a pipeline: which tells why it failed by itself
        raise
    except Exception as error:  # ONNX Runtime's own errors share no base
        if batched:
            raise ExportError(
                f"{runner.told} does not run at a batch of {rows_of(batch)} ({described(error)}): a batch size is "
                f"hard-coded in the model; use sizes of the tensors it is given, or declare a fixed first dimension"
            ) from error
        raise ExportError(f"{runner.told} does not run: {described(error)}") from error


def _check_says_something(wanted: Sequence[Outputs], ailing: Callable[[], str]) -> None:
    """ExportError where an output is never a number: every graph that answers NaN would be equal."""
    for name in wanted[0]:
        values = [outputs[name] for outputs in wanted if name in outputs and outputs[name].size]
        if values and all(array.dtype.kind == "f" and not np.isfinite(array).any() for array in values):
            raise ExportError(
                f"output {name} is NaN or infinite in every element, at every batch, so that nothing can be verified"
                f"{ailing()}; publish a model that answers, or leave that output out"
            )


def _in_types_of(got: Outputs, expected: Outputs) -> Outputs:
    """The framework's answers in the widths that the graph serves: scikit-learn answers in float64, its graph in 32."""
    return {
        name: array.astype(got[name].dtype)
        if name in got and {array.dtype.kind, got[name].dtype.kind} in ({"f"}, {"i"}, {"u"}, {"i", "u"})
        else array
        for name, array in expected.items()
    }


def _observed(record: TensorRecord, arrays: Sequence[Any]) -> TensorRecord:
    """The output's dims as the graph declares them, checked against what came out."""
    shapes = {array.shape for array in arrays}
    if len({len(shape) for shape in shapes}) > 1:
        raise ExportError(f"output {record.name!r} changes its number of dimensions with its input: {sorted(shapes)}")
    if not record.dims and len(next(iter(shapes))):  # ONNX Runtime shows an unknown shape as an empty one
        columns = zip(*shapes, strict=True)
        return record.model_copy(update={"dims": tuple(c[0] if len(set(c)) == 1 else -1 for c in columns)})
    for shape in shapes:
        if any(dim not in (-1, size) for dim, size in zip(record.dims, shape, strict=True)):
            raise ExportError(
                f"output {record.name!r} is declared as {list(record.dims)} and came out as {list(shape)}: "
                f"a size is hard-coded in the model"
            )
    return record


def _leads(batches: Sequence[Inputs], answers: Sequence[Outputs]) -> bool:
    return all(
        array.ndim and len(array) == rows_of(batch)
        for batch, answer in zip(batches, answers, strict=True)
        for array in (*batch.values(), *answer.values())
    )


def _prove_repeatable(runner: Runner, batch: Inputs, answer: Outputs, agree: Agree) -> None:
    try:
        agree(answer, runner.run(batch))
    except VerificationError as error:
        raise VerificationError(
            f"the same inputs give another answer each time ({error}): the model draws random numbers, "
            f"so no server could be verified against it; make them an input"
        ) from None


def largest(errors: Mapping[str, OutputError], found: Mapping[str, OutputError]) -> dict[str, OutputError]:
    """The largest differences of each output in either: not every batch tells of every output."""
    both = ((name, errors.get(name, apart), apart) for name, apart in found.items())
    return {
        **errors,
        **{
            name: OutputError(max_abs=max(one.max_abs, other.max_abs), max_rel=max(one.max_rel, other.max_rel))
            for name, one, other in both
        },
    }


def check_rows_apart(answer: Callable[[Inputs], Outputs], batch: Inputs, agree: Agree) -> None:
    """VerificationError where a row of ``batch`` is not answered as it is by itself."""
    together = answer(batch)
    alone = [answer({k: v[i : i + 1] for k, v in batch.items()}) for i in range(rows_of(batch))]
    agree(together, {name: np.concatenate([a[name] for a in alone]) for name in together})


def _prove_rows_apart(runner: Runner, batch: Inputs, agree: Agree) -> None:
    try:
        check_rows_apart(runner.run, batch, agree)
    except VerificationError as error:
        raise ExportError(
            f"a row's answer depends on the other rows of its batch ({error}): with max_batch_size the server would "
            f"mix requests of different clients; export without it"
        ) from None


def _affordable(samples: list[Sample]) -> list[Sample]:
    kept, size = samples[:1], 0
    for k, sample in enumerate(samples):
        size += sum(array.nbytes for array in (*sample.inputs.values(), *sample.outputs.values()))
        if k and size <= GOLDEN_BYTES:
            kept.append(sample)
    return kept
