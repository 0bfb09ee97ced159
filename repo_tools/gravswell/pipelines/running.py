"""A pipeline in this process: its function, with members that are run in ONNX Runtime."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravswell.pipelines.calling import Member, Tensor, as_array
from gravswell.quiver.composition.opening import MemberVersion, Sessions
from gravswell.quiver.manifest import TensorRecord
from gravswell.quiver.reader import RepositoryReader

if TYPE_CHECKING:
    from gravswell.pipelines.authoring import Pipeline


class Running:
    """The function, ready to be called. ``temporary`` holds the members' files as long as it is there."""

    def __init__(
        self,
        pipeline: "Pipeline",
        members: Mapping[str, MemberVersion],
        reader: RepositoryReader,
        temporary: "tempfile.TemporaryDirectory[str]",
    ) -> None:
        self._pipeline = pipeline
        self._temporary = temporary
        self._members = members
        self._sessions = Sessions(reader, Path(temporary.name))
        self._keywords = {alias: self._member(alias, version) for alias, version in members.items()} | pipeline.assets

    @property
    def sessions(self) -> Sessions:
        """The members in ONNX Runtime."""
        return self._sessions

    def __call__(self, *tensors: Any, **named: Any) -> Any:
        """What the function returns. TypeError for inputs that are not its."""
        wanted = self._pipeline.parameters.inputs
        given = dict(zip(wanted, tensors, strict=False)) | named
        if set(given) != set(wanted) or len(tensors) + len(named) != len(wanted):
            raise TypeError(f"{self._pipeline.name} takes {', '.join(wanted)}, each once")
        return self._pipeline.function(*(as_array(given[name]) for name in wanted), **self._keywords)

    def _member(self, alias: str, version: MemberVersion) -> Member:
        def call(_: str, feed: dict[str, Any]) -> dict[str, Any]:
            return self._sessions.call(version.model, version.record.version, feed)

        return Member(alias, as_tensors(version.inputs), as_tensors(version.outputs), version.max_batch_size, call)


def as_tensors(records: Iterable[TensorRecord]) -> list[Tensor]:
    """Inputs or outputs, as a :class:`Member` has them."""
    return [Tensor(record.name, record.data_type, record.dims, record.optional) for record in records]
