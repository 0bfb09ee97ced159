"""What ``torch.export`` took for granted of the inputs' sizes, and inputs that show whether it matters.

A branch on a size is decided by the example's, and torch notes the condition: ``x.shape[1] <= 100`` of a module that
crops longer inputs. It keeps the condition in its own program, where a longer input is an error. ONNX has no place for
it: there a longer input is answered, by the wrong branch. Most conditions are harmless, being limits of the module
itself: a kernel's width, a table of 512 positions. Which they are is seen by asking the module beyond them.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import sympy  # type: ignore[import-untyped]  # comes with torch
import torch
from torch.utils._sympy.functions import Min, Mod
from torch.utils._sympy.printers import PythonPrinter

from gravswell.quiver.exporters.base import Assumption, Inputs, InputSpec, Shapes
from gravswell.quiver.exporters.sampling import FAR_ROWS, is_batched

MOST_VALUES = 1 << 22
"""Of all inputs together, when sizes are tried that break a condition."""

FURTHER = 300
"""Sizes behind a bound among which one is looked for at which the module's equalities are met."""

MULTIPLES = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 28, 32, 48, 56, 64, 96, 112, 128, 224, 256)
"""Of which a module may take none but these, such as images of whole patches, without that torch sees why."""

FEW = 16
"""Sizes below a bound of which each is tried."""

_log = logging.getLogger(__name__)

Sizes = Mapping[Any, int]
"""Sizes by the symbol of their dimension, one for each dynamic dim of each input."""


def assumptions(program: torch.export.ExportedProgram, specs: Sequence[InputSpec], example: Inputs) -> list[Assumption]:
    """What ``program`` took for granted, each with inputs of sizes at which it may be wrong.

    ``specs``: the program's inputs, in its order. ``example``: what it was made with. A condition that only inputs of
    far more than :data:`MOST_VALUES` values break is left out: nobody could run the module on them.
    """
    conditions = _conditions(program, specs)
    base = {_symbol(spec, axis): example[spec.name].shape[axis] for spec, axis in _dynamic(specs)}
    found = []
    for condition in conditions:
        equalities = [other for other in conditions if isinstance(other, sympy.Eq) and other != condition]
        groups = _joined(_groups(specs), equalities)
        likely, further, every = _breaking(condition, groups, base, equalities)
        if likely:
            rows = () if condition.free_symbols & set(groups[0]) else groups[0]
            shapes, more = (_affordable(sizes, specs, rows) for sizes in (likely, further))
            found.append(Assumption(PythonPrinter().doprint(condition), shapes, more, every and bool(shapes)))
    return found


def _affordable(several: Sequence[Sizes], specs: Sequence[InputSpec], rows: Sequence[Any]) -> tuple[Shapes, ...]:
    """The inputs of these sizes, without those that are too large also with a single row; ``rows``: the batch."""
    found: dict[tuple[tuple[int, ...], ...], Shapes] = {}
    for sizes in several:
        for fewer in (sizes, {**sizes, **dict.fromkeys(rows, 1)}):
            shapes = {spec.name: _shape(spec, fewer) for spec in specs}
            if sum(map(math.prod, shapes.values())) <= MOST_VALUES:
                found.setdefault(tuple(shapes.values()), shapes)
                break
    return tuple(found.values())


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
    own_terms = (environment.replace(condition).xreplace(own) for condition in found)
    conditions = dict.fromkeys(_plain(part) for term in own_terms for part in sympy.And.make_args(term))
    known = {_symbol(spec, axis) for spec, axis in _dynamic(specs)}
    return [c for c in conditions if c.free_symbols and c.free_symbols <= known]


def _plain(condition: Any) -> Any:
    """``x <= 512`` where torch says that ``x`` is the smaller one of 512 and ``x``, as of a slice."""
    if isinstance(condition, sympy.Eq):
        for size, least in (condition.args, condition.args[::-1]):
            if isinstance(least, Min) and size in least.args and len(least.args) == 2:
                return sympy.Le(size, next(bound for bound in least.args if bound != size))
    return condition


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


def _breaking(
    condition: Any, groups: list[list[Any]], base: Sizes, equalities: Sequence[Any]
) -> tuple[list[Sizes], list[Sizes], bool]:
    """Sizes at which the condition is not met, as an :class:`Assumption` has them.

    One dim changed, little and much, and then all of them; also the nearest at which the module's ``equalities`` are
    met: others it refuses, whatever its branches are. Further ones are what a module may take which takes few.
    """
    about = [group for group in groups if condition.free_symbols & set(group)]
    likely: list[Sizes] = []
    further: list[Sizes] = []
    every = True
    for group in about:
        usual = base[group[0]]
        at = partial(_with, base, group)
        broken = _broken(lambda size, at=at: _holds(condition, at(size)), condition, usual, alone=len(about) == 1)  # type: ignore[misc]
        if not broken:
            continue
        nearest = min(broken, key=lambda size, usual=usual: abs(size - usual))  # type: ignore[misc]
        far = [size for size in broken if abs(size - usual) >= 2 * abs(nearest - usual)]
        chosen = [nearest, *(n for n in broken if n == nearest + 1), *far[:1], -(-nearest // usual) * usual]
        likely += map(at, chosen)
        if equalities and not isinstance(condition, sympy.Eq):
            onward = range(nearest, nearest + FURTHER) if nearest > usual else range(nearest, 0, -1)[:FURTHER]
            likely += islice((at(size) for size in onward if _all_hold(equalities, at(size))), 1)
        everything = {symbol: nearest for others in groups[1:] for symbol in others}
        everything |= dict.fromkeys(groups[0], nearest if group is groups[0] else FAR_ROWS)
        likely.append({symbol: everything[symbol] for symbol in base})
        if len(about) == 1 and max(broken) < usual and nearest <= FEW:
            likely += map(at, range(nearest, 0, -1))
        else:  # of an equality, which neither neighbour meets, those are as good as any
            every = every and not any(_holds(condition, at(size)) for size in (usual - 1, usual + 1))
        multiples = [(nearest // m if nearest < usual else -(-nearest // m)) * m for m in MULTIPLES]
        further += [at(size) for size in dict.fromkeys(multiples) if size]
    if len(about) > 1:  # such as a product, which both dims together reach sooner than either alone
        both = [symbol for group in about for symbol in group]
        usual = max(base[symbol] for symbol in both)
        likely += [_with(base, both, n) for n in _edges(lambda n: _holds(condition, _with(base, both, n)), usual)]
    broken_by = partial(filter, lambda sizes: not _holds(condition, sizes))
    return list(broken_by(likely)), list(broken_by(further)), every


def _with(base: Sizes, group: Sequence[Any], size: int) -> Sizes:
    return {**base, **dict.fromkeys(group, size)}


def _broken(holds: Callable[[int], bool], condition: Any, usual: int, *, alone: bool) -> list[int]:
    """Sizes at which it does not hold, ascending; none of 1 where several dims are in it, which is broadcast."""
    sizes = {*_candidates(condition, usual), *_edges(holds, usual)}
    return sorted(size for size in sizes if (size > 1 or alone) and not holds(size))


def _edges(holds: Callable[[int], bool], usual: int) -> Iterator[int]:
    """The nearest sizes to both sides of the usual one at which it does not hold, where it holds up to there."""
    for end in (1, MOST_VALUES):
        inside, outside = usual, end
        if holds(outside):
            continue
        while abs(outside - inside) > 1:
            middle = (inside + outside) // 2
            inside, outside = (middle, outside) if holds(middle) else (inside, middle)
        yield outside


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
