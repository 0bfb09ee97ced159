"""``.<entry>.gravswell.json``: what must be remembered of an entry and its folder cannot say.

It outlives the entry: an entry that is removed and added again goes on counting where it ended. Only the aliases go,
whose versions are gone. Deleting the whole repository removes it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gravswell.errors import VerificationError
from gravswell.quiver.schema import check_age


class EntryState(BaseModel):
    """The file's content. Written only by conditional replace, absent until first needed."""

    model_config = ConfigDict(frozen=True, extra="allow")  # a later release's fields survive our rewrite

    schema_: Literal["gravswell.dev/entry/v1"] = Field(default="gravswell.dev/entry/v1", alias="schema")
    next_version: int = Field(default=1, ge=1, alias="nextVersion")
    """No version below it will be made again: numbers are never reused."""
    aliases: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return (self.model_dump_json(by_alias=True, indent=2) + "\n").encode()

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
