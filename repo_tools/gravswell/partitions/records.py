"""What is written beside the parts of a partition: who holds what, and what goes from whom to whom. No ONNX here."""

import hashlib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.manifest import Sha256, Signature, TensorRecord

PLAN_FILE = "partition.json"
PUBLISHED_FILE = "published.json"

By = Literal["layer", "column", "row"]
"""What a rank holds: consecutive layers, or of each layer some output columns, or some input rows."""

_CAMEL = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

_Document = TypeVar("_Document", bound=BaseModel)


class Tensor(TensorRecord):
    """A tensor between parts."""

    model_config = _CAMEL


class PartRecord(BaseModel):
    """One graph of a partition: what a rank computes at one stage, or what puts the ranks' answers together."""

    model_config = _CAMEL

    name: str
    """``rank-0``, ``combine``; with several stages ``rank-0-stage-2``, ``combine-2``."""
    stage: int = Field(ge=1)
    rank: int | None
    """None: it combines."""
    file: str
    """Relative to the folder of the document."""
    digest: Sha256
    """Of that file."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weight_bytes: int
    layers: tuple[str, ...] = ()
    """The layers with weights that are in it, or of which it has a share."""


class Combined(BaseModel):
    """A tensor that the ranks' answers are put together to, at the end of a stage."""

    model_config = _CAMEL

    tensor: str
    stage: int
    how: Literal["concat", "sum"]
    axis: int | None = None
    """Along which they are concatenated, counted from the last one, which is -1."""


class Plan(BaseModel):
    """A whole partition. Tensors have one name everywhere: a part takes what the model takes, or what others made."""

    model_config = _CAMEL

    schema_: Literal["gravswell.dev/partition/v1"] = Field(default="gravswell.dev/partition/v1", alias="schema")
    model: str
    by: By
    ranks: int = Field(ge=1)
    stages: int = Field(ge=1)
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parts: tuple[PartRecord, ...]
    """In the order in which they run; those of one stage side by side, and its combination after them."""
    combined: tuple[Combined, ...] = ()
    weight_bytes: int
    """Of the whole model, each weight once."""
    replicated: dict[str, int] = Field(default_factory=dict)
    """Weights that more than one part holds in full, and their bytes."""

    @property
    def signature(self) -> Signature:
        """What the whole takes and gives."""
        return Signature(inputs=self.inputs, outputs=self.outputs)

    def of_rank(self, rank: int) -> tuple[PartRecord, ...]:
        """What one rank computes, stage by stage."""
        return tuple(part for part in self.parts if part.rank == rank)


class RankManifest(BaseModel):
    """What one rank needs to know: its graphs, and where it stands among the others."""

    model_config = _CAMEL

    schema_: Literal["gravswell.dev/rank/v1"] = Field(default="gravswell.dev/rank/v1", alias="schema")
    model: str
    by: By
    rank: int = Field(ge=0)
    ranks: int = Field(ge=1)
    stages: int = Field(ge=1)
    device: int | None = None
    """Which of its target's devices; None: the rank table says, or the rank is the number of its GPU."""
    target: Literal["cpu", "gpu"] = "cpu"
    provider: str | None = None
    """Which of the target's; None: its first one."""
    parts: tuple[PartRecord, ...]
    plan_digest: Sha256
    """Of the partition's document: ranks that have another one are of another partition."""


class Published(BaseModel):
    """Where a partition is: the entry that clients call, and those of its parts. Versions by entry."""

    model_config = _CAMEL

    repository: str
    entry: str
    version: int
    parts: dict[str, int]


def encoded(document: BaseModel) -> bytes:
    """A document as it is written to a file."""
    return (document.model_dump_json(by_alias=True, indent=2) + "\n").encode()


def manifest_of(plan: Plan, rank: int) -> RankManifest:
    """What the process of one rank of a partition needs to know. InvalidInputError for a rank that there is not."""
    if not 0 <= rank < plan.ranks:
        raise InvalidInputError(f"{plan.model} has no rank {rank}: its ranks are 0 to {plan.ranks - 1}")
    return RankManifest(
        model=plan.model,
        by=plan.by,
        rank=rank,
        ranks=plan.ranks,
        stages=plan.stages,
        parts=plan.of_rank(rank),
        plan_digest=hashlib.sha256(encoded(plan)).hexdigest(),
    )


def read(kind: type[_Document], path: Path) -> _Document:
    """Read one. NotFoundError where there is no such file, InvalidInputError where it is something else."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError(f"there is no file {path}: gravswell partition --folder FOLDER writes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise InvalidInputError(
            f"{path} is no {kind.__name__} of a partition ({where}: {first['msg']}): gravswell partition --folder "
            f"FOLDER writes one"
        ) from None
