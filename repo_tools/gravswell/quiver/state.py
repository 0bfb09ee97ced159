"""``.<entry>.gravswell.json``: what must be remembered of an entry and its folder cannot say.

It outlives the entry: an entry that is removed and added again goes on counting where it ended. Only the aliases go,
whose versions are gone. Deleting the whole repository removes it.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gravswell.errors import VerificationError
from gravswell.quiver.schema import check_age

PROMOTE, ROLLBACK, REMOVE = "promote", "rollback", "remove"
"""What moves an alias: :attr:`Move.action`."""

MOVES_OF_AN_ALIAS = 50
MOVES_OF_AN_ENTRY = 500
"""How many moves are remembered: of each alias, so that a busy one never crowds out another, and in all."""

_LATER = ("revision", "since", "history", "removing", "pins", "pipelines")
"""Fields that are written only once there is something in them."""

Number = Annotated[int, Field(ge=1)]


class Move(BaseModel):
    """One change of one alias, as its history keeps it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    alias: str
    version: Number | None
    """Where it went; None when it was removed."""
    previous: Number | None
    """Where it was; None when there was none of that name."""
    at: datetime
    by: str
    """``user@host``, or who the mover said."""
    action: str = PROMOTE
    """``promote``, ``rollback`` or ``remove``. A later release may know more."""
    reason: str = ""


class Pin(BaseModel):
    """What one cluster serves of the entry, as somebody last saw it there."""

    model_config = ConfigDict(frozen=True, extra="allow")

    versions: tuple[Number, ...] = ()
    seen: datetime


class Expected(BaseModel):
    """Versions of the entry that a pipeline's version will have as members, which is on its way."""

    model_config = ConfigDict(frozen=True, extra="allow")

    versions: tuple[Number, ...]
    noted: datetime


class Hold(BaseModel):
    """A pipeline that has, or had, versions of the entry as members: its own manifests say which."""

    model_config = ConfigDict(frozen=True, extra="allow")

    expected: dict[str, Expected] = Field(default_factory=dict)
    """By writer: what no manifest says yet."""


class EntryState(BaseModel):
    """The file's content. Written only by conditional replace, absent until first needed."""

    model_config = ConfigDict(frozen=True, extra="allow")  # a later release's fields survive our rewrite

    schema_: Literal["gravswell.dev/entry/v1"] = Field(default="gravswell.dev/entry/v1", alias="schema")
    revision: int = Field(default=0, ge=0)
    """Counts the writes. Most stores name a content by its hash: without it, one that changed and changed back would
    pass for one that never did, and a promotion would miss the removal in between."""
    next_version: int = Field(default=1, ge=1, alias="nextVersion")
    """No version below it will be made again: numbers are never reused."""
    since: Number | None = None
    """No version below it belongs to the entry as it is. Set while another entry is replaced, and something of it left.
    """
    aliases: dict[str, Number] = Field(default_factory=dict)
    history: tuple[Move, ...] = ()
    """The moves of aliases, oldest first."""
    removing: tuple[Number, ...] = ()
    """Versions whose removal is decided and perhaps not done: no alias is moved to one."""
    pins: dict[str, Pin] = Field(default_factory=dict)
    """By cluster: which versions must stay though no alias names them."""
    pipelines: dict[str, Hold] = Field(default_factory=dict)
    """By the pipeline's entry."""

    def holds(self, number: int) -> bool:
        """Whether version ``number``, if it is there, belongs to the entry as it is."""
        return self.since is None or number >= self.since

    def moved(self, move: Move) -> "EntryState":
        """With ``move`` made and remembered."""
        aliases = {name: number for name, number in self.aliases.items() if name != move.alias}
        if move.version is not None:
            aliases[move.alias] = move.version
        own = [m for m in self.history if m.alias == move.alias]
        crowded = own[0] if len(own) >= MOVES_OF_AN_ALIAS else None
        kept = (*(m for m in self.history if m is not crowded), move)
        return self.model_copy(update={"aliases": aliases, "history": kept[-MOVES_OF_AN_ENTRY:]})

    def trail(self, alias: str) -> list[int]:
        """The versions that rollbacks of ``alias`` go back along, the present one last; empty without such an alias.

        A promotion adds to it and a rollback takes away: after 3, 4, 5 and a rollback it is 3, 4. So the next rollback
        goes to 3, and never forth again to the 5 that was rolled back.
        """
        trail: list[int] = []
        for move in self.history:
            if move.alias != alias:
                continue
            if move.previous is not None and trail[-1:] != [move.previous]:
                trail.append(move.previous)  # what led there is forgotten, or was an edit by hand
            if move.version is None:
                trail.clear()
            elif move.action == ROLLBACK and move.version in trail[:-1]:
                trail.pop()
                while trail[-1] != move.version:
                    trail.pop()
            else:
                trail.append(move.version)
        present = self.aliases.get(alias)
        if present is None:
            return []
        return trail if trail[-1:] == [present] else [*trail, present]

    def last_move(self, alias: str) -> Move | None:
        """Who moved ``alias`` last, if that is remembered."""
        return next((move for move in reversed(self.history) if move.alias == alias), None)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        empty = {name for name in _LATER if not getattr(self, name)}
        return (self.model_dump_json(by_alias=True, indent=2, exclude=empty) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> "EntryState":
        """Parse the file at ``where``; :class:`VerificationError` when it is damaged."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            check_age(data, cls, where=where)
            raise VerificationError(
                f"{where} is damaged ({error.errors()[0]['msg']}): restore it from a backup; "
                f"it remembers which version numbers were used"
            ) from None
