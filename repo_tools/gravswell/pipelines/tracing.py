"""Running a pipeline's function on symbols: what it passes from model to model, or that it does more than that.

A symbol has a type and sizes, and no values. A function that only hands symbols to members, and returns them, is an
ensemble. Whatever needs a value (arithmetic, a branch, a loop over rows) ends the run with :class:`NeedsValuesError`,
and the pipeline is business logic. What cannot be right either way is an error that names models and tensor.
"""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from gravswell.errors import InvalidInputError
from gravswell.pipelines.calling import Member, has_one_more, named_outputs
from gravswell.pipelines.declaring import check_outputs
from gravswell.pipelines.running import as_tensors
from gravswell.pipelines.symbols import Facts, NeedsValuesError, Size, Symbol, facts_of
from gravswell.quiver.composition.opening import MemberVersion
from gravswell.quiver.manifest import TensorRecord


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a member: its inputs' and outputs' names to the tensors there."""

    member: MemberVersion
    inputs: Mapping[str, Facts]
    outputs: Mapping[str, Facts]


@dataclass(slots=True)
class Trace:
    """What the function did with the symbols."""

    inputs: dict[str, Facts]
    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, Facts] = field(default_factory=dict)


class _TracedMember(Member):
    def __init__(self, version: MemberVersion, trace: Trace) -> None:
        inputs, outputs = as_tensors(version.inputs), as_tensors(version.outputs)
        super().__init__(version.record.alias, inputs, outputs, version.max_batch_size, lambda _, arrays: arrays)
        self._version = version
        self._trace = trace

    def __call__(self, *tensors: Any, **named: Any) -> Any:
        try:
            given = self.bound(tensors, named)
        except TypeError as error:
            raise InvalidInputError(str(error)) from None
        version = self._version
        rows = Size() if version.leads_with_rows else None
        taken = {}
        for record in version.inputs:
            if record.name not in given:
                continue  # which may be left out
            value = given[record.name]
            if not isinstance(value, Symbol):
                raise NeedsValuesError(f"gives {version.told} a value of its own as {record.name}")
            taken[record.name] = facts = facts_of(value)
            _take(facts, record, version, rows)
            _carry(facts, record, version)
            facts.uses += 1
        made = {
            record.name: Facts(
                f"{record.name} of {version.told}",
                data_type=record.data_type,
                sizes=_sizes(record, rows),
                one_more=has_one_more(record.dims, version.max_batch_size),
            )
            for record in version.outputs
        }
        self._trace.steps.append(Step(version, taken, made))
        return self.answered({name: Symbol(facts) for name, facts in made.items()})

    def start(self, *tensors: Any, **named: Any) -> Future[Any]:
        """The step is written down at once: which steps run at the same time, Triton finds by their tensors."""
        started: Future[Any] = Future()
        started.set_result(self(*tensors, **named))
        return started


def trace(
    function: Callable[..., Any],
    inputs: Sequence[str],
    members: Mapping[str, MemberVersion],
    *,
    declared: Sequence[TensorRecord] | None,
    output_names: Sequence[str] | None,
    others: Mapping[str, Any],
) -> Trace | str:
    """What the function does with symbols; where it needs values, what for, in words.

    :param others: its other keywords, by name.
    :raises InvalidInputError: what is wrong however it is run: types or shapes of two models that do not go together,
        an input or an answer that nothing uses, an output without a name.
    """
    known = {record.name: record for record in declared or ()}
    symbols = {name: Symbol(_input(name, known.get(name))) for name in inputs}
    traced = Trace({name: facts_of(symbol) for name, symbol in symbols.items()})
    calls = {alias: _TracedMember(member, traced) for alias, member in members.items()}
    try:
        result = function(*symbols.values(), **calls, **others)
        _name_outputs(traced, result, output_names, function.__name__)
    except NeedsValuesError as error:
        return f"{error}{_line(error, function)}"
    except InvalidInputError as error:
        raise InvalidInputError(f"{function.__name__}: {error}{_line(error, function)}") from None
    except Exception as error:  # noqa: BLE001 - of a library that takes arrays only; a fault shows with values too
        return f"fails without values ({type(error).__name__}: {error}){_line(error, function)}"
    check_outputs(function.__name__, traced.outputs)
    _check_free(traced, function.__name__)
    _check_flow(traced, function.__name__)
    _name_tensors(traced)
    return traced


def _input(name: str, record: TensorRecord | None) -> Facts:
    if record is None:
        return Facts(f"input {name}", name=name)
    return Facts(f"input {name}", record.dims, record.data_type, _sizes(record, None), name=name)


def _sizes(record: TensorRecord, rows: Size | None) -> list[Size]:
    sizes = [Size(None if dim == -1 else dim) for dim in record.dims]
    return [rows, *sizes[1:]] if rows is not None else sizes


def _take(facts: Facts, record: TensorRecord, member: MemberVersion, rows: Size | None) -> None:
    """Have the tensor be what the member's input takes."""
    if facts.data_type is None:
        facts.data_type = record.data_type
    into = f"goes into {record.name} of {member.told}"
    if facts.data_type != record.data_type:
        raise InvalidInputError(
            f"{facts.origin} is {facts.data_type}, and {into}, which takes {record.data_type}: convert it in the "
            f"function, or export one of the models with the other type"
        )
    if facts.sizes is None:
        facts.sizes = _sizes(record, rows)
        return
    told = f"{facts.origin} is {[size.dim for size in facts.sizes]}, and {into}, which takes {list(record.dims)}"
    wanted = _sizes(record, rows)
    if len(facts.sizes) != len(wanted):
        raise InvalidInputError(f"{told}: reshape it in the function, or export a model that takes it so")
    for axis, (have, want) in enumerate(zip(facts.sizes, wanted, strict=True)):
        free = facts.declared is not None and facts.declared[axis] == -1
        if not have.meets(want):
            declare = "declare the input so, " if facts.declared is not None else ""
            raise InvalidInputError(
                f"{told}: they differ in dimension {axis}, {have.dim} and {want.dim}: {declare}change it in the "
                f"function, or export a model that takes it so"
            )
        if free and have.dim != -1:
            raise InvalidInputError(
                f"{facts.origin} is declared as any size in dimension {axis}, and {into}, where it is {have.dim}: "
                f"declare {have.dim}"
            )


def _carry(facts: Facts, record: TensorRecord, member: MemberVersion) -> None:
    """An ensemble hands a tensor on as it is: its members must have it in the same form."""
    wanted = has_one_more(record.dims, member.max_batch_size)
    if facts.one_more not in (None, wanted):
        raise NeedsValuesError(
            f"gives {facts.origin} to {member.told}: one number for each row is [n, 1] on a server for models that "
            f"form batches (max_batch_size), and [n] for others"
        )
    facts.one_more = wanted


def _name_outputs(traced: Trace, result: Any, names: Sequence[str] | None, function: str) -> None:
    taken: dict[int, str] = {}
    for name, value in named_results(result, names, function).items():
        if not isinstance(value, Symbol):
            raise NeedsValuesError(f"returns a value of its own as {name}")
        facts = facts_of(value)
        if id(facts) in taken:
            raise NeedsValuesError(f"returns {facts.origin} twice, as {taken[id(facts)]} and as {name}")
        if facts.name in traced.inputs:
            raise NeedsValuesError(f"returns {facts.origin} as it came")
        if name in traced.inputs:  # of an ensemble they are one tensor, which would start its own step again
            raise NeedsValuesError(f"gives its output {name} the name of an input")
        taken[id(facts)] = name
        facts.uses += 1
        traced.outputs[name] = facts


def named_results(result: Any, names: Sequence[str] | None, function: str) -> dict[str, Any]:
    """What the function returned, by ``names``, or a dict by its own.

    InvalidInputError for anything else without names, and for other names or another number.
    """
    if names is None and isinstance(result, Mapping):
        return dict(result)
    if names is None:
        values = result if isinstance(result, tuple) else (result,)
        raise InvalidInputError(
            f"{function} returns {len(values)} tensor{'s' if len(values) != 1 else ''} without a name: give "
            f'output_names=["y", …], or return a dict by name'
        )
    try:
        return named_outputs(result, names)
    except ValueError as error:
        raise InvalidInputError(str(error)) from None


def _check_free(traced: Trace, function: str) -> None:
    """What one tensor meets later on may bind a size of another that was declared as any."""
    for name, facts in traced.inputs.items():
        for axis, (given, size) in enumerate(zip(facts.declared or (), facts.sizes or (), strict=False)):
            if given == -1 and size.dim != -1:
                raise InvalidInputError(
                    f"{function}: input {name} is declared as any size in dimension {axis}, and a model behind it "
                    f"takes {size.dim} there: declare {size.dim}"
                )


def _check_flow(traced: Trace, function: str) -> None:
    unused = [name for name, facts in traced.inputs.items() if not facts.uses]
    if unused:
        raise InvalidInputError(f"{function} gives its input {', '.join(unused)} to no model: take it out")
    for step in traced.steps:
        if not any(facts.uses for facts in step.outputs.values()):
            raise InvalidInputError(
                f"{function} calls {step.member.told} and nothing uses its answer ({', '.join(step.outputs)}): "
                f"return it, or leave the call out"
            )


def _name_tensors(traced: Trace) -> None:
    """The ensemble's name of each tensor: an output's own, and of the others the member's with the output's."""
    for name, facts in traced.outputs.items():
        facts.name = name
    taken = {*traced.inputs, *traced.outputs}
    for number, step in enumerate(traced.steps, start=1):
        for output, facts in step.outputs.items():
            if facts.name:
                continue
            plain = f"{step.member.record.alias}.{output}"
            facts.name = plain if plain not in taken else f"{number}.{plain}"
            taken.add(facts.name)


def _line(error: BaseException, function: Callable[..., Any]) -> str:
    """Where in the user's code it was, as the end of a message."""
    file = inspect.unwrap(function).__code__.co_filename
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (line {frames[-1].lineno}: {frames[-1].line})" if frames else ""
