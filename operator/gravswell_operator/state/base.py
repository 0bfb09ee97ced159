"""What is said of objects of every kind: why something does not run, and that an object cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gravswell_operator.conditions import Reason

Raw = Mapping[str, Any]
"""An object as the API server sends it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a pod does not run, in words for a condition."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object of ours that this operator cannot read: it was made with another release's definitions.

    It is there all the same, and what depends on it must not be treated as if it were gone.
    """

    kind: str
    name: str
    why: str
    """The field that cannot be read, and what is wrong with it."""
    generation: int
    created: str
    """RFC 3339."""
    deleting: bool
    spec: Raw
    status: Raw = field(compare=False)
    finalizers: tuple[str, ...] = ()

    def text(self, name: str) -> str | None:
        """A text field of the spec, if it can be read."""
        value = self.spec.get(name)
        return value if isinstance(value, str) else None

    def reference(self, name: str) -> str | None:
        """The name in a reference of the spec, if it can be read."""
        value = self.spec.get(name)
        found = value.get("name") if isinstance(value, Mapping) else None
        return found if isinstance(found, str) else None

    def problem(self) -> "Problem":
        """Why whatever refers to the object is left as it is."""
        return Problem(
            Reason.INVALID_SPEC,
            f"this operator cannot read {self.kind} {self.name} ({self.why}), so what depends on it stays as it is; "
            "install the operator's release of the definitions, or the operator of theirs",
        )


def unreadable(kind: str, raw: Raw, why: str) -> Unreadable:
    """What is left of an object of ``kind`` that cannot be read."""
    metadata = raw["metadata"]
    spec, status = raw.get("spec"), raw.get("status")
    return Unreadable(
        kind=kind,
        name=metadata["name"],
        why=why,
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        spec=spec if isinstance(spec, Mapping) else {},
        status=status if isinstance(status, Mapping) else {},
        finalizers=tuple(metadata.get("finalizers") or ()),
    )
