"""An entry's configuration as an object whose edits are on disk at once.

A thin shell over Triton's own protobuf messages: every field is an attribute, every list and map behaves as protobuf's,
and after any edit, however deep, ``config.pbtxt`` is replaced, provided that nobody else changed it in between.
"""

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextlib import contextmanager
from typing import Any, cast

from tritonclient.grpc import model_config_pb2

from gravswell.errors import ConflictError, InvalidInputError
from gravswell.quiver.checks import refuse_new
from gravswell.quiver.config import ConfigText
from gravswell.quiver.edits import Edits, RateLimiter, number_named
from gravswell.quiver.fieldpaths import set_field
from gravswell.quiver.signature import Shape, add_tensor

_KINDS = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU", "model": "KIND_MODEL"}


class Live:
    """A message, list or map inside a configuration. Prints and compares as what it stands for."""

    __slots__ = ("_generation", "_owner", "_target")

    def __init__(self, target: Any, owner: "Config") -> None:
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_owner", owner)
        object.__setattr__(self, "_generation", owner.generation)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return self._method(value) if callable(value) and not _is_part(value) else self._owner.wrap(value)

    def __setattr__(self, name: str, value: Any) -> None:
        self._edit(lambda: setattr(self._target, name, number_named(self._target, name, unwrap(value))), name)

    def __getitem__(self, key: Any) -> Any:
        return self._owner.wrap(self._target[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._edit(lambda: self._target.__setitem__(key, unwrap(value)))

    def __delitem__(self, key: Any) -> None:
        self._edit(lambda: self._target.__delitem__(key))

    def __len__(self) -> int:
        return len(self._target)

    def __bool__(self) -> bool:
        return bool(self._target) if hasattr(self._target, "__len__") else True

    def __iter__(self) -> Iterator[Any]:
        return (self._owner.wrap(value) for value in self._target)

    def __contains__(self, value: Any) -> bool:
        return unwrap(value) in self._target

    def __eq__(self, other: object) -> bool:
        return bool(self._target == unwrap(other))

    __hash__ = None  # type: ignore[assignment]  # mutable, as protobuf's own

    def __str__(self) -> str:
        return str(self._target)

    def __repr__(self) -> str:
        return repr(self._target)

    def __dir__(self) -> list[str]:
        return dir(self._target)

    def _method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._edit(lambda: method(*(unwrap(a) for a in args), **{k: unwrap(v) for k, v in kwargs.items()}))

        return call

    def _edit(self, edit: Callable[[], Any], field: str = "") -> Any:
        if self._generation != self._owner.generation:
            raise ConflictError(
                f"{self._owner.where} was changed since this part of it was read: take it from entry.config again"
            )
        with self._owner.one_edit(field):
            result = edit()
        return self._owner.wrap(result)


class Config(Edits):
    """The configuration of one entry; see the module. ``print`` shows it as ``config.pbtxt``.

    What is written is checked first: an edit that makes Triton refuse the model is an InvalidInputError that names the
    field, and nothing is written. Several edits that are right only together go into one :meth:`editing`.
    """

    _own = frozenset({"_read", "_write", "_name", "_text", "_generation", "_shown", "_held"})

    def __init__(self, name: str, read: Callable[[], ConfigText], write: Callable[[str], None]) -> None:
        self._name = name
        self._read = read
        self._write = write
        self._generation = 0
        self._held = False
        self._text = read()
        self._shown = self._text.render()

    # -- edits with a name

    def add_instance_group(
        self,
        count: int = 1,
        kind: str = "gpu",
        gpus: Sequence[int] | None = None,
        name: str | None = None,
        *,
        profile: Sequence[str] = (),
        passive: bool = False,
        host_policy: str = "",
        rate_limiter: RateLimiter | None = None,
    ) -> Any:
        """Run ``count`` instances on each device: on every GPU, or on those in ``gpus``; or ``kind="cpu"``."""
        group = {
            "count": _count(count),
            "kind": _kind(kind),
            "gpus": gpus or (),
            "name": name or "",
            "profile": profile,
            "passive": passive,
            "host_policy": host_policy,
            "rate_limiter": rate_limiter or None,
        }
        return self._add("instance_group", [group])[-1]

    def scale_instance_group(self, count: int, group: int = 0) -> Any:
        """Set the instances per device of the ``group``-th instance group."""
        groups = self._text.message.instance_group
        if not -len(groups) <= group < len(groups):
            raise InvalidInputError(f"{self._name} has {len(groups)} instance groups: add one with add_instance_group")
        with self.one_edit("instance_group"):
            groups[group].count = _count(count)
        return self.instance_group[group]

    def add_input(self, name: str, shape: Shape, dtype: Any = "float32") -> Any:
        """State an input: ``add_input("x", (None, 64), "float32")``."""
        with self.one_edit("input"):
            add_tensor(self._text.message.input, name, shape, dtype)
        return self.input[-1]

    def add_output(self, name: str, shape: Shape, dtype: Any = "float32") -> Any:
        """State an output: ``add_output("y", (None, 1), "float32")``."""
        with self.one_edit("output"):
            add_tensor(self._text.message.output, name, shape, dtype)
        return self.output[-1]

    def add_step(
        self, model_name: str, input_map: Mapping[str, str], output_map: Mapping[str, str], version: int = -1
    ) -> Any:
        """Append a step to an ensemble; the maps go from the member's tensor to the ensemble's."""
        with self.one_edit("ensemble_scheduling"):
            self._text.message.ensemble_scheduling.step.add(
                model_name=model_name, model_version=version, input_map=dict(input_map), output_map=dict(output_map)
            )
        return self.ensemble_scheduling.step[-1]

    def _set(self, field: str, value: Any, *, effective: bool = False) -> Any:
        with self.one_edit(field, effective=effective):
            part = model_config_pb2.ModelConfig(**{field: value})
            self._text.message.ClearField(field)
            self._text.message.MergeFrom(part)
        return getattr(self, field)

    def _add(self, field: str, value: Any) -> Any:
        with self.one_edit(field):
            self._text.message.MergeFrom(model_config_pb2.ModelConfig(**{field: value}))
        return getattr(self, field)

    def set(self, settings: Mapping[str, str], *, dry_run: bool = False) -> str:
        """Set fields by their paths, all at once, and return the text that is, or would be, in the file.

        ``{"dynamic_batching.max_queue_delay_microseconds": "100", "instance_group[0].gpus": "0, 1"}``: values are in
        Triton's text form, and an empty one clears the field; see :func:`~gravswell.quiver.fieldpaths.set_field`.
        """
        if self._held and not dry_run:
            with self._undone_where_refused():
                self._set_fields(self._text.message, settings)
            return self._text.render()
        proposed = ConfigText(self._text.render(), where=self.where)
        self._set_fields(proposed.message, settings)
        return self.replace(proposed.render(), dry_run=dry_run)

    def replace(self, text: str, *, dry_run: bool = False) -> str:
        """Put ``text`` in place of the whole file, checked as any edit is, and return it."""
        if self._held and not dry_run:
            raise InvalidInputError(
                f"{self.where} is being edited: replace the whole text before editing() or after it"
            )
        proposed = ConfigText(text, where=self.where)
        self._check_name(proposed.message)
        refuse_new(self._text.message, proposed.message, self.where)
        if not dry_run and text != self._shown:
            self._write(text)
            self._take(proposed)
        return text

    # -- every field of the message

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(Live(self._text.message, self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._own:
            object.__setattr__(self, name, value)
        else:
            setattr(Live(self._text.message, self), name, value)

    def __eq__(self, other: object) -> bool:
        return bool(self._text.message == unwrap(other))

    __hash__ = None  # type: ignore[assignment]  # mutable, as protobuf's own

    def __str__(self) -> str:
        return self._shown

    __repr__ = __str__

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._text.message.DESCRIPTOR.fields_by_name})

    # -- the file

    @property
    def message(self) -> Any:
        """A copy of the protobuf message."""
        copy = model_config_pb2.ModelConfig()
        copy.CopyFrom(self._text.message)
        return copy

    @property
    def where(self) -> str:
        """Where the file is."""
        return self._text.where

    @property
    def generation(self) -> int:
        """Counts the times that the file was read anew."""
        return self._generation

    def refresh(self) -> None:
        """Take up what others have written to the file; within :meth:`editing` that is a conflict at its end."""
        if self._held:
            return
        text = self._read()
        if text.render() != self._shown:
            self._take(text)

    @contextmanager
    def editing(self) -> Iterator["Config"]:
        """Several edits as one: checked together and written once, at the end; none of them if an error leaves it.

        An edit whose error is caught inside is undone alone: those before it stay.
        """
        if self._held:
            raise InvalidInputError(f"{self.where} is being edited already: put all of it into one editing()")
        self._held = True
        try:
            yield self
        except BaseException:
            self._held = False
            self._take(self._read())
            raise
        self._held = False
        self.commit()

    @contextmanager
    def one_edit(self, field: str = "", *, effective: bool = False) -> Iterator[None]:
        """What is done inside is one edit, of that ``field`` if it has a name, and is written at the end.

        What protobuf says of a value that cannot be is InvalidInputError, and so is a way of scheduling that would
        silently take the place of another: a model has one.
        """
        before = self._text.message.WhichOneof("scheduling_choice")
        with self._undone_where_refused(field):
            yield
            self._check_scheduling(before, self._text.message)
        self.commit(effective=effective)

    @contextmanager
    def _undone_where_refused(self, field: str = "") -> Iterator[None]:
        """An edit that fails inside leaves the message as it was before; what protobuf says is InvalidInputError."""
        before = self.message
        try:
            yield
        except (TypeError, ValueError) as error:
            if self._held:
                self._text.message.CopyFrom(before)
                self._generation += 1  # parts of the message are copies now
            else:
                self._take(self._read())
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(f"{self.where}: {field or 'the value'}: {error}") from error

    def commit(self, *, effective: bool = False) -> None:
        """Check and write what was edited; on any failure the object is again what the file says."""
        if self._held:
            return
        try:
            self._check_name(self._text.message)
            shown = self._text.render()
            if shown != self._shown:
                self._text.check(effective=effective)
                self._write(shown)
        except BaseException:
            self._take(self._read())
            raise
        if shown != self._shown:
            self._text = self._text.rewritten(shown)
            self._shown = shown

    def _check_name(self, message: Any) -> None:
        if message.name not in ("", self._name):  # Triton takes the folder's for none
            raise InvalidInputError(
                f"the name in {self.where} is the folder's, {self._name!r}: add an entry to have another one"
            )

    def _set_fields(self, message: Any, settings: Mapping[str, str]) -> None:
        for path, text in settings.items():
            before = message.WhichOneof("scheduling_choice")
            set_field(message, path, text)
            self._check_scheduling(before, message)

    def _check_scheduling(self, before: str | None, message: Any) -> None:
        now = message.WhichOneof("scheduling_choice")
        if before is not None and now not in (None, before):
            raise InvalidInputError(
                f"{self.where}: {now} would take the place of {before}, for a model has one of them: clear that first "
                f"(config.ClearField({before!r}), or {before}= with gravswell config set)"
            )

    def wrap(self, value: Any) -> Any:
        """``value``, or where it is a part of the message, a live view of it; so too inside a list or a map's items."""
        if _is_part(value):
            return Live(value, self)
        if isinstance(value, tuple):
            return tuple(map(self.wrap, value))
        if isinstance(value, list | ItemsView | KeysView | ValuesView | Iterator):  # a slice, .items(), reversed()
            return [self.wrap(item) for item in value]
        return value

    def _take(self, text: ConfigText) -> None:
        self._text = text
        self._shown = text.render()
        self._generation += 1


def unwrap(value: Any) -> Any:
    """What a :class:`Live` or :class:`Config` stands for; anything else as it is."""
    if isinstance(value, Live):
        return object.__getattribute__(value, "_target")
    if isinstance(value, Config):
        return value.message
    return value


def _is_part(value: Any) -> bool:
    return hasattr(value, "DESCRIPTOR") or hasattr(value, "MergeFrom")


def _count(count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidInputError(f"{count!r} instances: use a whole number from 1 on")
    return count


def _kind(kind: str) -> int:
    name = _KINDS.get(kind.lower(), kind)
    if name not in _KINDS.values():
        raise InvalidInputError(f"{kind!r} is no kind of instance: use one of {', '.join(_KINDS)}")
    return cast(int, model_config_pb2.ModelInstanceGroup.Kind.Value(name))
