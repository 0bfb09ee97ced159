"""What ``torch.export`` took for granted of the inputs' sizes, and inputs that show whether it matters.

A branch on a size is decided by the example's, and torch notes the condition: ``x.shape[1] <= 100`` of a module that
crops longer inputs. It keeps the condition in its own program, where a longer input is an error. ONNX has no place for
it: there a longer input is answered, by the wrong branch. Most conditions are harmless, being limits of the module
itself: a kernel's width, a table of 512 positions. Which they are is seen by asking the module beyond them.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import sympy  # type: ignore[import-untyped]  # comes with torch
import torch
from torch.utils._sympy.functions import Mod
from torch.utils._sympy.printers import PythonPrinter

from gravswell.quiver.exporters.base import Assumption, Inputs, InputSpec
from gravswell.quiver.exporters.sampling import FAR_ROWS, is_batched

MOST_VALUES = 1 << 22
"""Of all inputs together, when sizes are tried that break a condition."""

FURTHER = 300
"""Sizes behind a bound among which one is looked for that the module takes, such as a multiple of 32."""

_log = logging.getLogger(__name__)

Sizes = Mapping[Any, int]
"""Sizes by the symbol of their dimension, one for each dynamic dim of each input."""


def assumptions(program: torch.export.ExportedProgram, specs: Sequence[InputSpec], example: Inputs) -> list[Assumption]:
    """Inputs of sizes at which ``program`` may be wrong, each with the condition that they break.

    ``specs``: the program's inputs, in its order. ``example``: what it was made with. A condition that only inputs of
    more than :data:`MOST_VALUES` values break is left out: nobody could run the module on them.
    """
    conditions = _conditions(program, specs)
    if not conditions:
        return []
    groups = _groups(specs)
    base = {_symbol(spec, axis): example[spec.name].shape[axis] for spec, axis in _dynamic(specs)}
    found: dict[tuple[int, ...], Assumption] = {}
    for condition in conditions:
        equalities = [other for other in conditions if isinstance(other, sympy.Eq) and other != condition]
        for sizes in _breaking(condition, _joined(groups, equalities), base, equalities):
            shapes = {spec.name: _shape(spec, sizes) for spec in specs}
            if sum(map(math.prod, shapes.values())) <= MOST_VALUES:
                found.setdefault(tuple(sizes.values()), Assumption(PythonPrinter().doprint(condition), shapes))
    return list(found.values())


def _conditions(program: torch.export.ExportedProgram, specs: Sequence[InputSpec]) -> list[Any]:
    """Expressions over the symbols of the dynamic dims, all true at the example's sizes."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    values = [nodes[name].meta["val"] for name in program.graph_signature.user_inputs if name in nodes]
    sizes: dict[Any, Any] = {}
    environment = None
    for value, spec in zip(values, specs, strict=True):
        for axis, dim in enumerate(spec.shape):
            size = value.shape[axis]
            if dim is None and isinstance(size, torch.SymInt):  # one that became a number is seen in the graph
                environment = size.node.shape_env
                sizes[_symbol(spec, axis)] = size.node.expr
    if environment is None:
        return []
    own, found = _solved(sizes)
    for inner, bounds in program.range_constraints.items():
        found += [sympy.Ge(inner, bounds.lower), *([sympy.Le(inner, bounds.upper)] if bounds.upper.is_Integer else [])]
    found += [assertion.expr for group in environment.deferred_runtime_asserts.values() for assertion in group]
    found += [guard.expr for guard in environment.guards]
    conditions = dict.fromkeys(environment.replace(condition).xreplace(own) for condition in found)
    known = {_symbol(spec, axis) for spec, axis in _dynamic(specs)}
    return [c for c in conditions if c.free_symbols and c.free_symbols <= known]


def _solved(sizes: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[Any]]:
    """torch's own symbols by the dims' (``sizes``: the other way), and the conditions under which there are such dims.

    A size may be composed of others, as of a mask for two inputs in a row: those that are one symbol come first. A
    symbol that is found in no way is left out.
    """
    own: dict[Any, Any] = {}
    found: list[Any] = []
    for symbol, size in sorted(sizes.items(), key=lambda item: (len(item[1].free_symbols), not item[1].is_Symbol)):
        unknown = size.free_symbols - set(own)
        expression = size.xreplace(own)
        if not unknown:
            found.append(sympy.Eq(symbol, expression))
            continue
        try:
            (inner,) = unknown
            (solution,) = sympy.solve(expression - symbol, inner)
        except (ValueError, NotImplementedError):  # not one unknown, not one solution, or no way to it
            _log.warning("torch takes %s for %s of its own sizes: no condition on those is tried", symbol, size)
            continue
        own[inner] = solution
        numerator, denominator = sympy.fraction(solution)
        if denominator != 1:
            found.append(sympy.Eq(Mod(numerator, denominator), 0))
    return own, found


def _dynamic(specs: Sequence[InputSpec]) -> Iterator[tuple[InputSpec, int]]:
    return ((spec, axis) for spec in specs for axis, dim in enumerate(spec.shape) if dim is None)


def _symbol(spec: InputSpec, axis: int) -> Any:
    """Named as the user writes it, since messages show it."""
    return sympy.Symbol(f"{spec.name}.shape[{axis}]", integer=True, positive=True)


def _groups(specs: Sequence[InputSpec]) -> list[list[Any]]:
    """Dims that are always of one size, as all inputs' batches are; the batch is the first one."""
    batched = is_batched(specs)
    batch = [_symbol(spec, 0) for spec in specs] if batched else []
    return [batch, *([_symbol(spec, axis)] for spec, axis in _dynamic(specs) if axis or not batched)]


def _joined(groups: list[list[Any]], equalities: Sequence[Any]) -> list[list[Any]]:
    """``groups``, those that must be alike as one; the batch stays the first."""
    joined = [list(group) for group in groups]
    for left, right in (condition.args for condition in equalities):
        first = next((group for group in joined if left in group), None)
        second = next((group for group in joined if right in group), None)
        if first is None or second is None or first is second:
            continue
        keep, drop = (second, first) if second is joined[0] else (first, second)
        keep += drop
        joined = [group for group in joined if group is not drop]
    return joined


def _shape(spec: InputSpec, sizes: Sizes) -> tuple[int, ...]:
    return tuple(sizes[_symbol(spec, axis)] if dim is None else dim for axis, dim in enumerate(spec.shape))


def _breaking(condition: Any, groups: list[list[Any]], base: Sizes, equalities: Sequence[Any]) -> Iterator[Sizes]:
    """Sizes at which the condition is not met: one dim changed, little and much, and then all of them.

    Also the nearest at which the module's ``equalities`` are: others it refuses, whatever its branches are.
    """
    about = [group for group in groups if condition.free_symbols & set(group)]
    for group in about:
        usual = base[group[0]]
        sizes = [size for size in _candidates(condition, usual) if size > 1 or len(about) == 1]  # 1 is broadcast
        broken = [size for size in sizes if not _holds(condition, {**base, **dict.fromkeys(group, size)})]
        if not broken:
            continue
        nearest = min(broken, key=lambda size, usual=usual: abs(size - usual))  # type: ignore[misc]
        far = [size for size in broken if abs(size - usual) >= 2 * abs(nearest - usual)]
        likely = [-(-nearest // usual) * usual]  # what takes the example's size takes its multiples, if it takes few
        for size in dict.fromkeys([nearest, *(n for n in broken if n == nearest + 1), *far[:1], *likely]):
            if _holds(condition, {**base, **dict.fromkeys(group, size)}):
                continue
            yield {**base, **dict.fromkeys(group, size)}
        if equalities and not isinstance(condition, sympy.Eq):
            onward = range(nearest, nearest + FURTHER) if nearest > usual else range(nearest, 0, -1)[:FURTHER]
            further = ({**base, **dict.fromkeys(group, size)} for size in onward)
            yield from islice((s for s in further if not _holds(condition, s) and _all_hold(equalities, s)), 1)
        everything = {symbol: nearest for others in groups[1:] for symbol in others}
        everything |= dict.fromkeys(groups[0], nearest if group is groups[0] else FAR_ROWS)
        if not _holds(condition, everything):
            yield {symbol: everything[symbol] for symbol in base}


def _candidates(condition: Any, usual: int) -> list[int]:
    """Sizes on both sides of each number in the condition, in ascending order."""
    numbers = {abs(part) for number in condition.atoms(sympy.Rational) for part in (int(number.p), int(number.q))}
    numbers |= {a * b for a in numbers for b in numbers}  # x / 8 <= 37
    near = {number + step for number in numbers for step in (-1, 0, 1, 2)} | {2 * number + 3 for number in numbers}
    return sorted(size for size in near | {1, 2, 3, usual + 1, usual + 2, 2 * usual + 1} if 1 <= size <= MOST_VALUES)


def _all_hold(conditions: Sequence[Any], sizes: Sizes) -> bool:
    return all(_holds(condition, sizes) for condition in conditions)


def _holds(condition: Any, sizes: Sizes) -> bool:
    """Whether it is met; what cannot be told is."""
    return condition.xreplace({symbol: sympy.Integer(size) for symbol, size in sizes.items()}) is not sympy.false
