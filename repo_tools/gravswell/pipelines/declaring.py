"""What a pipeline's function says of itself: which parameters are inputs and which are members, and their tensors."""

import ast
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gravswell.errors import InvalidInputError
from gravswell.pipelines.shipping.text import text_of
from gravswell.quiver.datatypes import parse_data_type
from gravswell.quiver.manifest import TensorRecord
from gravswell.quiver.signature import parse_shape

Declared = Mapping[str, tuple[Any, Sequence[int | None]]]
"""Type and shape of each tensor, None for any size: ``{"x": ("FP32", (None, 64))}``."""

_NO_NAMES = frozenset({"self", "cls"})


@dataclass(frozen=True, slots=True)
class Parameters:
    """A function's parameters, in order."""

    inputs: tuple[str, ...]
    others: tuple[str, ...]
    """Keyword-only ones: members, and files that go along."""
    open: bool
    """Whether it takes any number of members (``**members``)."""


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """InvalidInputError for a function that cannot be a pipeline's."""
    name = getattr(function, "__name__", None)
    if not inspect.isfunction(function) or name is None:
        raise InvalidInputError(f"{function!r} is no function: a pipeline is a function that was written with def")
    if name == "<lambda>":
        raise InvalidInputError("a pipeline's function has a name: write it with def, not as a lambda")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidInputError(f"{name} is asynchronous or a generator: a pipeline's function returns its outputs")
    kinds = inspect.Parameter
    inputs, others, is_open = [], [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
            inputs.append(parameter.name)
        elif parameter.kind is kinds.KEYWORD_ONLY:
            others.append(parameter.name)
        elif parameter.kind is kinds.VAR_KEYWORD:
            is_open = True
        else:
            raise InvalidInputError(f"{name} takes *{parameter.name}: name each input, for clients send them by name")
        if parameter.default is not parameter.empty:
            raise InvalidInputError(
                f"{name} has a default for {parameter.name!r}: take it out, for every input is sent, and every member "
                f"given"
            )
    if not inputs:
        raise InvalidInputError(
            f"{name} has no input: its parameters before the * are what clients send; those behind it are members"
        )
    if _NO_NAMES.intersection(inputs):
        raise InvalidInputError(f"{name} is a method: write a function outside of a class")
    return Parameters(tuple(inputs), tuple(others), is_open)


def check_mapping(what: str, given: Any, shown: str) -> None:
    """InvalidInputError for what is no dict, with what to write."""
    if not isinstance(given, Mapping):
        raise InvalidInputError(f"{what} is {given!r}: give a dict by name, {what}={{{shown}}}")


def declared_tensors(what: str, declared: Declared | None) -> tuple[TensorRecord, ...] | None:
    """The tensors that a user declared, None for none. InvalidInputError names the one that cannot be."""
    if declared is None:
        return None
    check_mapping(f"{what}s", declared, '"x": ("FP32", (None, 64))')
    records = []
    for name, pair in declared.items():
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InvalidInputError(
                f'{what} {name!r} is declared as {pair!r}: give its type and its shape, ("FP32", (None, 64))'
            )
        dims = tuple(-1 if dim is None else dim for dim in parse_shape(name, pair[1]))
        records.append(TensorRecord(name=name, data_type=parse_data_type(pair[0], tensor=name), dims=dims))
    return tuple(records)


def check_declared(name: str, parameters: Parameters, inputs: Collection[str] | None, outputs: Sequence[str]) -> None:
    """InvalidInputError for declared inputs that are not the function's, and as of :func:`check_outputs`."""
    if inputs is not None and set(inputs) != set(parameters.inputs):
        raise InvalidInputError(
            f"inputs declares {', '.join(inputs) or 'none'}, and {name} takes {', '.join(parameters.inputs)}: "
            f"declare each of these"
        )
    check_outputs(name, outputs)


def check_outputs(name: str, outputs: Collection[Any]) -> None:
    """InvalidInputError for outputs of the function ``name`` that have no name, or are written twice."""
    unnamed = [repr(output) for output in outputs if not isinstance(output, str) or not output]
    if unnamed:
        raise InvalidInputError(f"{name} returns an output by {', '.join(unnamed)}: give each output a name")
    twice = sorted({output for output in outputs if list(outputs).count(output) > 1})
    if twice:
        raise InvalidInputError(f"output {', '.join(twice)} of {name} is written twice: give each output its own name")


def check_used(function: Callable[..., Any], parameters: Parameters) -> None:
    """InvalidInputError for an input or a member that the function's text never names. Source that cannot be read is
    told where the function is shipped.
    """
    try:
        tree = ast.parse(text_of(function))
    except (OSError, TypeError, SyntaxError):
        return
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if "locals" in named:
        return
    unused = [name for name in (*parameters.inputs, *parameters.others) if name not in named]
    if unused:
        raise InvalidInputError(
            f"{function.__name__} takes {', '.join(unused)} and uses it nowhere: take it out of the parameters"
        )
