"""A tensor without values: what a pipeline's function is run on, to see what it passes from model to model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from gravswell.quiver.manifest import TensorRecord


class NeedsValuesError(BaseException):
    """The function needs a tensor's values. No Exception, so that no function catches it unawares."""


@dataclass(slots=True)
class Size:
    """A dimension: a number, or any, perhaps the same as another's."""

    number: int | None = None
    same: "Size | None" = None

    def root(self) -> "Size":
        """The one that stands for all that are the same."""
        return self if self.same is None else self.same.root()

    def meets(self, other: "Size") -> bool:
        """Have both be the same from now on; False where they are different numbers."""
        mine, theirs = self.root(), other.root()
        if mine is theirs:
            return True
        if mine.number is not None and theirs.number is not None:
            return mine.number == theirs.number
        if mine.number is None:
            mine.same = theirs
        else:
            theirs.same = mine
        return True

    @property
    def dim(self) -> int:
        """The number, -1 for any."""
        number = self.root().number
        return -1 if number is None else number


@dataclass(eq=False, slots=True)
class Facts:
    """What is known of a symbol: where it comes from, its type and sizes (None: not yet)."""

    origin: str
    """``input x``, or ``y of denoise (denoise/3)``."""
    declared: tuple[int, ...] | None = None
    """The dims that the user gave an input."""
    data_type: str | None = None
    sizes: list[Size] | None = None
    one_more: bool | None = None
    """Whether servers carry it with a last dim of 1: they have no scalars, and behind a batch that they form no rows of
    such. None: no member has it yet."""
    name: str = ""
    """The tensor's in the ensemble."""
    uses: int = 0

    @property
    def record(self) -> TensorRecord:
        """As servers have it."""
        assert self.data_type is not None, "taken by a member, or declared"
        assert self.sizes is not None, "taken by a member, or declared"
        dims = (*(size.dim for size in self.sizes), *((1,) if self.one_more else ()))
        return TensorRecord(name=self.name, data_type=self.data_type, dims=dims)


class Symbol:
    """A tensor without values, in the hands of the function."""

    __slots__ = ("_facts",)

    def __init__(self, facts: Facts) -> None:
        object.__setattr__(self, "_facts", facts)

    def __repr__(self) -> str:
        return f"<{facts_of(self).origin}>"

    def __getattr__(self, name: str) -> NoReturn:
        raise NeedsValuesError(f"uses .{name} of {facts_of(self).origin}")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise NeedsValuesError(f"sets .{name} of {facts_of(self).origin}")


def facts_of(symbol: Symbol) -> Facts:
    """What is known of it."""
    facts: Facts = object.__getattribute__(symbol, "_facts")
    return facts


def _needing(operation: str) -> Callable[..., NoReturn]:
    def method(self: Symbol, *_: Any, **__: Any) -> NoReturn:
        raise NeedsValuesError(f"uses {operation} of {facts_of(self).origin}")

    return method


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
_OPERATIONS = {
    "bool": "the truth",
    "len": "the length",
    "iter": "the elements",
    "contains": "the elements",
    "getitem": "an element",
    "setitem": "an element",
    "index": "the value",
}
_OPERATIONS |= {name: name for name in ("neg", "pos", "abs", "invert", "eq", "ne", "lt", "le", "gt", "ge")}
_OPERATIONS |= {name: name for binary in _BINARY for name in (binary, f"r{binary}", f"i{binary}")}
_OPERATIONS |= dict.fromkeys(("float", "int", "array", "array_function", "array_ufunc"), "the values")
for _method, _what in _OPERATIONS.items():
    setattr(Symbol, f"__{_method}__", _needing(_what))
setattr(Symbol, "__hash__", object.__hash__)  # noqa: B010 - assigning it would be an override to mypy
