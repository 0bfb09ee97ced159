"""What a user writes: a function and its members, as one model."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.pipelines.declaring import (
    Declared,
    check_declared,
    check_mapping,
    check_used,
    declared_tensors,
    parameters_of,
)
from gravswell.pipelines.ensembles import ensemble_signature
from gravswell.pipelines.members import Reference, repository_of, resolved
from gravswell.pipelines.running import Running
from gravswell.pipelines.tracing import Trace, trace
from gravswell.quiver.composition.base import Composite, Wishes
from gravswell.quiver.composition.config import Access, check_access
from gravswell.quiver.composition.opening import MemberVersion
from gravswell.quiver.composition.requirements import parse_requirement
from gravswell.quiver.entry import Entry
from gravswell.quiver.manifest import MemberRecord, TensorRecord
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.repository import ModelRepository
from gravswell.quiver.version import Version

if TYPE_CHECKING:
    from gravswell.quiver.exporters import Built

CompileTo = Literal["ensemble", "python"]


@dataclass(frozen=True, slots=True)
class Checked:
    """A pipeline that was checked against a repository."""

    name: str
    compiles_to: CompileTo
    why: str
    """What the function does that an ensemble cannot; empty for an ensemble."""
    members: tuple[MemberRecord, ...]
    inputs: tuple[TensorRecord, ...]
    """Empty where Python's are not declared, as for ``outputs``, which are seen when it is run."""
    outputs: tuple[TensorRecord, ...]


class Pipeline(Composite):
    """A function over tensors whose calls of members are calls of models. Made by :func:`pipeline`.

    ``entry.export_version(pipeline)`` publishes it. Called with arrays, it runs here, its members in ONNX Runtime.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        inputs: Declared | None = None,
        outputs: Declared | None = None,
        output_names: Sequence[str] | None = None,
        members: Mapping[str, Reference] | None = None,
        assets: Mapping[str, str | Path] | None = None,
        requirements: Sequence[str] | None = None,
        compile_to: CompileTo | None = None,
        access: Access = "private",
    ) -> None:
        self.parameters = parameters_of(function)
        self.function = cast(FunctionType, function)
        self.name = self.function.__name__
        self.inputs = declared_tensors("input", inputs)
        self.outputs = declared_tensors("output", outputs)
        if self.outputs is not None and output_names is not None:
            raise InvalidInputError("outputs names the outputs already: leave output_names out")
        if isinstance(output_names, str):
            raise InvalidInputError(f"output_names must be a sequence of names: [{output_names!r}]")
        if self.outputs is not None:
            output_names = [record.name for record in self.outputs]
        self.output_names = None if output_names is None else tuple(output_names)
        check_declared(
            self.name,
            self.parameters,
            None if self.inputs is None else [record.name for record in self.inputs],
            self.output_names or (),
        )
        check_used(self.function, self.parameters)
        check_mapping("members", members or {}, '"denoise": "noise-removal/3"')
        check_mapping("assets", assets or {}, '"words": "words.txt"')
        self.assets = {name: Path(path) for name, path in (assets or {}).items()}
        self.references = dict(members or {})
        self._check_keywords()
        if compile_to not in (None, "ensemble", "python"):
            raise InvalidInputError(f"compile_to={compile_to!r}: use ensemble or python, or leave it out")
        self.compile_to = compile_to
        self.access = check_access(access)
        self.requirements = None if requirements is None else checked_requirements(requirements)
        self._running: Running | None = None
        names = [*self.member_names, *self.references]
        if names and all(not isinstance(self.references.get(name, ""), str) for name in names):
            self.check()  # all that it is made of is at hand

    def __repr__(self) -> str:
        members = ", ".join(self.member_names)
        return f"<pipeline {self.name}({', '.join(self.parameters.inputs)}) of {members or 'no members'}>"

    @property
    def member_names(self) -> list[str]:
        """What the function calls its members."""
        named = [name for name in self.parameters.others if name not in self.assets]
        return named + [name for name in self.references if name not in named]

    def check(self, repository: "ModelRepository | str | Path | None" = None) -> "Checked":
        """Check it against the entries of ``repository``, or of that in which its members are, without running it.

        :raises NotFoundError: a member is not there.
        :raises InvalidInputError: types or shapes do not go together, something is used by nothing, or it cannot be
            what ``compile_to`` insists on.
        """
        members = resolved(self._reader(repository), self.member_names, self.references, pipeline=None)
        found = self.traced(members)
        records = tuple(member.record for member in members.values())
        if isinstance(found, str):
            return Checked(self.name, "python", found, records, self.inputs or (), self.outputs or ())
        signature = ensemble_signature(found)
        return Checked(self.name, "ensemble", "", records, signature.inputs, signature.outputs)

    def traced(
        self,
        members: Mapping[str, MemberVersion],
        inputs: Sequence[TensorRecord] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> Trace | str:
        """What the function does with its members if it only passes tensors on, or why it needs Python.

        InvalidInputError as of :meth:`check`.
        """
        found = trace(
            self.function,
            self.parameters.inputs,
            members,
            declared=inputs or self.inputs,
            output_names=output_names or self.output_names,
            others=self.assets,
        )
        if isinstance(found, str) and self.compile_to == "ensemble":
            raise InvalidInputError(
                f"{self.name} cannot be an ensemble, which only passes tensors from model to model: it {found}; leave "
                f"compile_to out to serve it as Python"
            )
        if self.compile_to == "python" and isinstance(found, Trace):
            return "is to be Python (compile_to)"
        return found

    def bind(self, repository: "ModelRepository | str | Path") -> "Pipeline":
        """Take the members from ``repository``, as they are now, for calls of this pipeline here. Returns itself."""
        reader = self._reader(repository)
        members = resolved(reader, self.member_names, self.references, pipeline=None)
        self._running = Running(self, members, reader, tempfile.TemporaryDirectory(prefix="gravswell-pipeline-"))
        return self

    def __call__(self, *tensors: Any, **named: Any) -> Any:
        """Run it here, and return what the function returns. The first call looks its members up (:meth:`bind`)."""
        if self._running is None:
            url = repository_of(self.references)
            if url is None:
                raise InvalidInputError(
                    f"{self.name} does not know where its members are: call bind(repository) first, or give entries "
                    f'as members={{"{next(iter(self.member_names), "model")}": repo.models[…]}}'
                )
            self.bind(url)
        assert self._running is not None, "bound above"
        return self._running(*tensors, **named)

    def build(self, reader: RepositoryReader, folder: Path, wishes: Wishes) -> "Built":
        """See :class:`~gravswell.quiver.composition.base.Composite`."""
        from gravswell.pipelines.building import build_pipeline  # noqa: PLC0415 - imports ONNX

        members = resolved(reader, self.member_names, self.references, pipeline=wishes.entry)
        if not members:
            raise InvalidInputError(
                f"{self.name} has no members, and a pipeline calls at least one model: take an entry as a keyword-only "
                f"parameter, def {self.name}({', '.join(self.parameters.inputs)}, *, model)"
            )
        return build_pipeline(self, members, reader, folder, wishes)

    def _reader(self, repository: "ModelRepository | str | Path | None") -> RepositoryReader:
        if isinstance(repository, ModelRepository):
            return RepositoryReader(repository.url)
        where = repository or repository_of(self.references)
        if where is None:
            raise InvalidInputError(f"{self.name} does not know where its members are: name the repository")
        return RepositoryReader(where)

    def _check_keywords(self) -> None:
        known = self.parameters.others
        for what, given in (("members", self.references), ("assets", self.assets)):
            unknown = sorted(set(given) - set(known))
            if unknown and not (self.parameters.open and what == "members"):
                raise InvalidInputError(
                    f"{what} names {', '.join(unknown)}, and behind the * {self.name} takes "
                    f"{', '.join(known) or 'none'}: name these"
                )
        both = sorted(set(self.references) & set(self.assets))
        if both:
            raise InvalidInputError(f"{', '.join(both)} of {self.name} is a member and an asset: it can be one of both")
        for name, reference in self.references.items():
            if not isinstance(reference, Entry | Version | str):
                raise InvalidInputError(
                    f"member {name} is {reference!r}: give an entry, one of its versions, or a name such as {name}/3"
                )
        for name, path in self.assets.items():
            if not path.is_file():
                raise NotFoundError(f"asset {name} of {self.name}: there is no file {path}")


def checked_requirements(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines of a ``requirements.txt``; InvalidInputError for what is none that names a package."""
    if isinstance(lines, str):
        raise InvalidInputError(f"requirements must be a sequence of packages: [{lines!r}]")
    for line in lines:
        try:
            parse_requirement(line)
        except InvalidInputError as error:
            raise InvalidInputError(f"requirements: {error}") from None
    return tuple(lines)


@overload
def pipeline(function: Callable[..., Any], /) -> Pipeline: ...


@overload
def pipeline(
    *,
    inputs: Declared | None = None,
    outputs: Declared | None = None,
    output_names: Sequence[str] | None = None,
    members: Mapping[str, Reference] | None = None,
    assets: Mapping[str, str | Path] | None = None,
    requirements: Sequence[str] | None = None,
    compile_to: CompileTo | None = None,
    access: Access = "private",
) -> Callable[[Callable[..., Any]], Pipeline]: ...


def pipeline(
    function: Callable[..., Any] | None = None, /, **how: Any
) -> Pipeline | Callable[[Callable[..., Any]], Pipeline]:
    """Make a pipeline of a function: ``@qv.pipeline(output_names=["label"])``.

    The function's parameters are what clients send. Those behind the ``*`` are members: called with tensors, by place
    or by name, they answer with one, or with several that have names. It returns a tensor, a tuple, or a dict::

        @qv.pipeline(inputs={"x": ("FP32", (None, 64))}, output_names=["label"])
        def clean_and_classify(x, *, denoise, classify):
            return classify(denoise(x))

    It becomes a Triton ensemble if it only passes tensors from member to member, and else runs as Python in the server.

    :param inputs: type and shape of each input, None for any size; an ensemble has them from its members.
    :param outputs: those of the outputs, where some sizes depend on values; by default what comes out is looked at.
    :param output_names: a name for each output, in order; a dict has its own.
    :param members: entries, versions or names (``denoise``, ``denoise/3``, ``denoise/champion``) by parameter. Default:
        the newest version of the entry of the parameter's name, in the repository that it is published in.
    :param assets: files that go along, by parameter behind the ``*``: there the function gets their paths.
    :param requirements: packages that the server is to install; by default those that the function imports.
    :param compile_to: insist on ``ensemble`` or ``python``.
    :param access: ``public`` lets clients call the members by themselves. ``private``: servers keep them under names
        that clients are not told. It is no lock: Triton's statistics and configs have these names, and stay open
        because clients of other models need them; an ``InferenceServer`` closes them by ``restrictedAPIs``.
    :raises InvalidInputError: it cannot be one, and the message says what to write.
    """
    if function is not None:
        return Pipeline(function, **how)
    return lambda given: Pipeline(given, **how)
