"""``.manifest.json``: the last file of a version to be written, and the one that makes it exist.

Its sha256 is the version's digest; it names the hash and size of every other file of the version.
"""

import hashlib
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from gravswell.errors import VerificationError
from gravswell.quiver.schema import check_age

MANIFEST = ".manifest.json"
GOLDEN = ".golden.npz"
VERSION_CONFIG = ".config.pbtxt"
MODEL_FILE = "model.onnx"
PYTHON_FILE = "model.py"
"""What runs a pipeline that is compiled into business logic."""
REQUIREMENTS_FILE = "requirements.txt"
"""Beside it: the packages that its functions import."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""JSON has no others: an infinite tolerance would be written as null, which says that none was asked for."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileRecord(_Part):
    """Hash and size in bytes of one file of the version."""

    sha256: Sha256
    size: int = Field(ge=0)


class TensorRecord(_Part):
    """Name, Triton data type (``TYPE_FP32``…) and dims of a tensor; -1 is a dynamic dim."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False
    """Of an input: a request may leave it out."""

    @model_serializer(mode="wrap")
    def _without_false(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not optional says nothing of it: the digests of versions stay what they were."""
        fields: dict[str, Any] = handler(self)
        return fields if self.optional else {name: value for name, value in fields.items() if name != "optional"}


class Signature(_Part):
    """What a client sees: the tensors that go in and come out."""

    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]


class OutputError(_Part):
    """Largest difference of one output between ONNX Runtime and the framework, over all samples."""

    max_abs: Finite
    max_rel: Finite


class VariantError(OutputError):
    """How far one output of a variant is from the framework's, over all rows that were compared."""

    of_scale: Finite
    """``max_abs`` as a share of the output's largest magnitude."""
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of scores, the share of rows whose largest one is the same; of integers and strings, of values that are equal."""

    def told(self) -> str:
        """The figures in words."""
        differs = f"differs by up to {self.max_abs:.3g} ({self.of_scale:.2%} of its largest value)"
        if self.agreement is None:
            return differs
        agrees = f"agrees on {self.agreement:.2%}"
        return f"{differs} and {agrees}" if self.max_abs else agrees  # a label has no size to differ by


class VariantRecord(_Part):
    """What a version of lower precision was made from, and what that cost."""

    kind: str
    """``fp16`` or ``int8``."""
    method: str
    """How: ``float16 weights and activations``, ``dynamic``…"""
    version: int = Field(ge=1)
    """The version that it was made from."""
    digest: Sha256
    """That version's."""
    max_error: Finite
    """The share of an output's largest magnitude by which it may differ, here and on every server."""
    rows: int = Field(ge=1)
    """Rows that were compared: of the golden batches, and of those given for calibration."""
    errors: dict[str, VariantError]


class VerificationRecord(_Part):
    """The proof that was made before publication."""

    reference: str
    """Whose outputs the golden ones are: ``torch 2.15.0``, ``scikit-learn 1.9.1``, ``onnxruntime 1.31.1``."""
    inputs: Literal["given", "random"] | None = None
    """Whether the batches were the user's own or drawn at random; None where an older release did not say."""
    samples: int = Field(ge=0)
    batch_sizes: tuple[int, ...] = ()
    shapes: tuple[dict[str, tuple[int, ...]], ...] = ()
    """The shape of each input in each batch; none where an older release did not say."""
    rtol: Finite | None = None
    """What the user asked for; None: each output was held to the tolerance of its own type."""
    atol: Finite | dict[str, Finite] | None = None
    """Likewise; by output for a variant, whose bound they are."""
    errors: dict[str, OutputError] = Field(default_factory=dict)
    within: tuple[str, ...] = ()
    """Conditions on the inputs' sizes, such as ``x.shape[1] <= 512``, beyond which it is not known whether the graph is
    right: the model refused everything that was tried there, or it would have been too much."""
    variant: VariantRecord | None = None
    """Of a version that was made from another one in lower precision."""


class SourceRecord(_Part):
    """The version that this one is a copy of, under another name."""

    model: str
    version: int = Field(ge=1)
    digest: Sha256


class MemberRecord(_Part):
    """A version of another entry that a pipeline calls."""

    alias: str
    """What the pipeline's function calls it."""
    model: str
    version: int = Field(ge=1)
    digest: Sha256
    rank: int | None = Field(default=None, ge=0)
    """Of a partition: which rank computes it. None: none, it puts the ranks' answers together or is no part."""

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A member of no rank says nothing of one: the digests of versions stay what they were."""
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if name != "rank" or value is not None}


class FusedModel(_Part):
    """One model of a fusion, by its id."""

    id: int = Field(ge=1)
    """What a row says in ``model_id`` to reach it."""
    name: str
    copy_of: int | None = None
    """The first id of the same model: it stands in the graph once."""
    source: str | None = None
    """The version that it is, ``entry/3``, where it was published."""
    scale: float = 1
    """As it was given; it changes no answer."""
    params: dict[str, Any] = Field(default_factory=dict)
    """What it was made with, as it was given."""
    inputs: tuple[str, ...] = ()
    """The inputs of the fusion that it reads."""
    outputs: tuple[str, ...] = ()
    """The outputs of the fusion that it gives."""


class Manifest(_Part):
    """One published version. Every field is immutable from the moment it is written."""

    schema_: Literal["gravswell.dev/manifest/v1"] = Field(default="gravswell.dev/manifest/v1", alias="schema")
    model: str
    version: int = Field(ge=1)
    created: datetime
    parent: int | None = None
    """The latest version when this one was made."""
    files: dict[str, FileRecord]
    """Every file of the version but this one, by path relative to the version's folder, hidden ones too."""
    signature: Signature
    opset: int
    ir_version: int
    target: str | None = None
    """Tag of the oldest Triton that the graph was made for; None where an older release did not say."""
    exporter: str
    framework: str
    gravswell: str
    verification: VerificationRecord
    source: SourceRecord | None = None
    """What it was copied from, where it got another name on the way; it has that version's files, times and proof."""
    members: tuple[MemberRecord, ...] = ()
    """Of a pipeline: the versions that it calls, in the same repository."""
    fusion: tuple[FusedModel, ...] | None = None
    """Of several models in one graph: the table of their ids, which the graph keeps too."""

    @property
    def main_file(self) -> str:
        """The file that a server runs."""
        return main_file(self.files)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        unset: dict[str, Any] = {name: True for name in ("source", "target", "fusion") if getattr(self, name) is None}
        if not self.members:
            unset["members"] = True
        unset["verification"] = {name for name in ("variant", "within") if not getattr(self.verification, name)}
        return (self.model_dump_json(by_alias=True, indent=2, exclude=unset) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> "Manifest":
        """Parse the file at ``where`` (a path or URL, for the message).

        Raises :class:`VerificationError` when the bytes are no manifest.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            check_age(data, cls, where=where)
            faults = ((".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()[:3])
            detail = "; ".join(f"{field}: {fault}" if field else fault for field, fault in faults)
            raise VerificationError(
                f"{where} is no manifest ({detail}): the version was damaged or written by something else; "
                f"restore the file or remove the version"
            ) from None


def main_file(files: Collection[str]) -> str:
    """Of a version's files, the one that a server runs. An ensemble has only its configuration."""
    return next((file for file in (MODEL_FILE, PYTHON_FILE) if file in files), VERSION_CONFIG)


def digest_of(manifest: bytes) -> str:
    """The digest of a version: hexadecimal sha256 of its manifest's bytes."""
    return hashlib.sha256(manifest).hexdigest()
