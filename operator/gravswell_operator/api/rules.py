"""CEL rules: what a schema cannot say, once for the API server and once for manifests that are checked without one.

A :class:`Rule` stands in the ``RULES`` of an object, or among the annotations of a field. The API server evaluates
``rule``; parsing the pydantic model evaluates ``holds``, so ``gravswell plan`` refuses a manifest with the very words
of the API server. A test applies a bad manifest for every rule and compares the two.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

EXTENSION = "x-kubernetes-validations"
"""Keyword under which a structural schema carries CEL rules."""


@dataclass(frozen=True)
class Rule:
    """One fact that must hold of an object or a field."""

    rule: str
    """The fact in CEL, over ``self`` (and ``oldSelf``: then it is checked on updates only)."""
    message: str
    """What the user reads when it does not hold: the field, the fact and the way out."""
    holds: Callable[[Any], bool] | None = None
    """The same fact in Python, over the parsed value. None: it needs the earlier object, and only a server has that."""
    field_path: str = ""
    """Where the message points, below the object that carries the rule, such as ``.tag``."""

    def schema(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.rule, "message": self.message, "fieldPath": self.field_path}
        return {key: value for key, value in entry.items() if value}

    def check(self, value: Any) -> Any:
        """``value`` as it is; a pydantic error with the rule's message where the rule does not hold."""
        if self.holds is not None and not self.holds(value):
            # The message goes in as a parameter: pydantic would take braces in it for placeholders.
            raise PydanticCustomError("rule", "{message}", {"message": self.message, "field_path": self.field_path})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        schema[EXTENSION] = [*schema.get(EXTENSION, ()), self.schema()]
        return schema


def matching(pattern: str, message: str, field_path: str = "", value: str = "self") -> Rule:
    """The rule that a string is wholly one of ``pattern``, in the syntax that RE2 and Python share.

    ``value`` is the CEL expression of the string. In Python it is read from the parsed object by ``field_path``.
    """
    if "\\" in pattern or "'" in pattern:
        raise ValueError(f"a pattern inside CEL needs no backslash or quote; write a class instead: {pattern}")
    compiled = re.compile(pattern)
    path = tuple(filter(None, field_path.split(".")))

    def holds(parsed: Any) -> bool:
        for name in path:
            parsed = getattr(parsed, name)
        return compiled.fullmatch(parsed) is not None

    return Rule(f"{value}.matches('^({pattern})$')", message, holds, field_path)
