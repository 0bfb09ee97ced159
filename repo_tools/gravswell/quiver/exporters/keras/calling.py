"""How a Keras model is called: what goes in under which name, how it is handed over, and what its answers are called.

It looks at the model's attributes alone, and so is the same for every backend. A functional model knows all of it; of
a subclassed one Keras keeps the shapes that it was built with.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.datatypes import parse_data_type
from gravswell.quiver.exporters.base import ExportRequest, InputSpec
from gravswell.quiver.exporters.sampling import specs_of_samples, type_of_samples

_CONTEXT = ("training", "mask")
"""Parameters of ``call`` that Keras fills itself."""


@dataclass(frozen=True, slots=True)
class _Own:
    """An input as the model knows it."""

    spec: InputSpec
    key: str
    """Another name that it goes by: its key in the dict that the model takes."""
    optional: bool = False


def inputs(request: ExportRequest) -> tuple[InputSpec, ...]:
    """The inputs in the model's order, those that were asked for completed by what the model knows.

    :raises InvalidInputError: what was asked for is not what the model takes, or nobody knows what it takes.
    """
    model, own = request.model, _own_inputs(request.model)
    asked = request.inputs or (() if own else specs_of_samples(request))
    if not asked and not (own and _is_complete(model)):
        raise InvalidInputError(
            f"{type(model).__name__} does not say what all of its inputs are: give their shapes, such as "
            f'input_shapes={{"x": (None, 64)}} with None for the batch; or call it once, where it takes a single one'
        )
    if asked and _functional_inputs(model) is None:
        return tuple(replace(spec, data_type=spec.data_type or _type_of(request, spec)) for spec in asked)
    if not asked:
        return tuple(replace(o.spec, data_type=o.spec.data_type or _type_of(request, o.spec)) for o in own)
    found = []
    for known, spec in _matched(model, own, asked):
        if not request.inferred:
            _check_fits(known.spec, spec)
        data_type = spec.data_type or known.spec.data_type or _type_of(request, spec)
        found.append(InputSpec(spec.name, data_type, spec.shape))
    return tuple(found)


class Call:
    """A model as a function from named tensors, of whichever backend, to its named answers."""

    def __init__(self, model: Any, specs: Sequence[InputSpec]) -> None:
        self._model = model
        self._names = [spec.name for spec in specs]
        self._hand_over = _handing_over(model, specs)

    def __call__(self, tensors: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Every tensor that the model returns in its inference form, in Keras's order, each with its name."""
        args, kwargs = self._hand_over(tensors)
        return _named(self._model, self._model(*args, **kwargs, training=False), self._names)


def layers_of(model: Any) -> list[Any]:
    """The model, and every layer in it at any depth."""
    return list(model._flatten_layers())


def known_texts(model: Any) -> list[str]:
    """What the model's layers look texts up in, without the special ones; empty if nothing does."""
    found: dict[str, None] = {}
    for layer in layers_of(model):
        if getattr(layer, "vocabulary_dtype", None) == "string" and callable(getattr(layer, "get_vocabulary", None)):
            found |= dict.fromkeys(map(str, layer.get_vocabulary(include_special_tokens=False)))
    return list(found)


def _own_inputs(model: Any) -> list[_Own]:
    """What a functional model takes, or what a subclassed one was built with; empty for one that was never built."""
    tensors = _functional_inputs(model)
    if tensors is None:
        return [_Own(spec, spec.name) for spec in _flat(_built_with(model))]
    keys = _keys(model) or [tensor.name for tensor in tensors]
    found = []
    for tensor, key in zip(tensors, keys, strict=True):
        if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
            raise ExportError(f"input {tensor.name!r} is sparse or ragged: Triton serves dense tensors; have it be one")
        layer = getattr(getattr(tensor, "_keras_history", None), "operation", None)
        shape = (None, *tensor.shape[1:]) if tensor.shape else ()  # Keras itself holds nobody to a batch's size
        spec = InputSpec(tensor.name, parse_data_type(tensor.dtype, tensor=tensor.name), shape)
        found.append(_Own(spec, key, optional=bool(getattr(layer, "optional", False))))
    return found


def _functional_inputs(model: Any) -> list[Any] | None:
    """Keras's own symbols of the inputs; None where the model is not made of such."""
    try:
        tensors = model.inputs
    except AttributeError:  # of a Sequential that was not built
        return None
    return list(tensors) if tensors and all(hasattr(tensor, "shape") for tensor in tensors) else None


def _keys(model: Any) -> list[str] | None:
    """Of a functional model that takes one dict of tensors: its keys, in the order of its inputs."""
    structure = getattr(model, "input", None)
    if not isinstance(structure, dict) or not all(hasattr(value, "shape") for value in structure.values()):
        return None
    keys = {id(tensor): key for key, tensor in structure.items()}
    found = [keys.get(id(tensor)) for tensor in model.inputs]
    return [str(key) for key in found] if None not in found else None


def _built_with(model: Any) -> dict[str, Any]:
    """By parameter of ``call``, the shapes that a subclassed model was built with, each as an InputSpec."""
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    own = _parameters(model)
    found: dict[str, Any] = {}
    for k, (key, shape) in enumerate(shapes.items()):
        name = key.removesuffix("_shape")
        if name not in own:  # the model's own build() calls its parameter as it likes
            name = own[k] if k < len(own) else name
        found[name] = _as_specs(name, shape)
    return {name: specs for name, specs in found.items() if specs is not None}


def _is_complete(model: Any) -> bool:
    """Whether each input is known: Keras keeps the shape of a subclassed model's first one alone, unless it is told."""
    if _functional_inputs(model) is not None:
        return True
    parameters = inspect.signature(model.call).parameters
    return all(
        parameters[p].default is not inspect.Parameter.empty or p in _built_with(model) for p in _parameters(model)
    )


def _as_specs(name: str, shape: Any) -> Any:
    if isinstance(shape, Mapping):
        return {key: _as_specs(str(key), inner) for key, inner in shape.items()}
    if isinstance(shape, list | tuple):
        if all(dim is None or isinstance(dim, int) for dim in shape):
            return InputSpec(name, None, (None, *shape[1:]) if shape else ())
        return [_as_specs(f"{name}_{k}", inner) for k, inner in enumerate(shape)]
    return None


def _flat(specs: Any) -> list[InputSpec]:
    if isinstance(specs, InputSpec):
        return [specs]
    inner = specs.values() if isinstance(specs, Mapping) else specs or ()
    return [spec for one in inner for spec in _flat(one)]


def _parameters(model: Any, asked: Sequence[str] = ()) -> list[str]:
    """Those of ``call`` that are inputs; one that Keras could fill itself, a mask, where it was ``asked`` for."""
    parameters = inspect.signature(model.call).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in kinds and (p.name in asked or p.name not in _CONTEXT)]


def _matched(model: Any, own: list[_Own], asked: Sequence[InputSpec]) -> list[tuple[_Own, InputSpec]]:
    """The model's inputs, in its order, each with what was asked for it: by name where all names fit, else in order."""
    names = {spec.name: spec for spec in asked}
    for labels in ([o.spec.name for o in own], [o.key for o in own]):
        if set(names) <= set(labels):
            missing = [label for o, label in zip(own, labels, strict=True) if label not in names and not o.optional]
            if missing:
                raise InvalidInputError(
                    f"{type(model).__name__} takes {', '.join(missing)} too: name each input, or leave the shapes out"
                )
            return [(o, names[label]) for o, label in zip(own, labels, strict=True) if label in names]
    if len(asked) != len(own):
        raise InvalidInputError(
            f"{type(model).__name__} takes {', '.join(o.spec.name for o in own)}, not {', '.join(names)}"
        )
    return list(zip(own, asked, strict=True))


def _check_fits(known: InputSpec, asked: InputSpec) -> None:
    """InvalidInputError where the model takes another shape. A size that it leaves open may become a number."""
    if not known.admits(asked.shape):
        raise InvalidInputError(
            f"input {asked.name!r} is {known.dims} in the model, not {asked.dims}: leave the shapes "
            f"out, or build the model with keras.Input(shape) of None where any size may come"
        )


def _type_of(request: ExportRequest, spec: InputSpec) -> str:
    """That of the samples, where they are integers; else that of the weights, which Keras casts floats to or from."""
    return type_of_samples(request, spec) or parse_data_type(str(request.model.variable_dtype), tensor=spec.name)


_HandOver = Callable[[Mapping[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def _handing_over(model: Any, specs: Sequence[InputSpec]) -> _HandOver:
    """How tensors by public name become the arguments of the model."""
    tensors = _functional_inputs(model)
    if tensors is not None:
        return _to_functional(model, specs)
    names = [spec.name for spec in specs]
    own = _parameters(model, names)
    if set(names) <= set(own):
        return lambda given: ((), {name: given[name] for name in names})
    built = _built_with(model)
    leaves = _flat(built)
    if len(leaves) == len(names) > 1:
        public = dict(zip((id(leaf) for leaf in leaves), _in_built_order(leaves, names), strict=True))
        return lambda given: ((), {p: _filled(one, given, public) for p, one in built.items()})
    if len(own) == 1 < len(names):
        return lambda given: ((dict(given),), {})
    if len(names) > len(own):
        raise InvalidInputError(
            f"{len(names)} inputs ({', '.join(names)}) for {type(model).__name__}.call({', '.join(own)})"
        )
    return lambda given: (tuple(given[name] for name in names), {})


def _in_built_order(leaves: list[InputSpec], names: list[str]) -> list[str]:
    own = [leaf.name for leaf in leaves]
    return own if set(own) == set(names) else names


def _filled(specs: Any, given: Mapping[str, Any], public: Mapping[int, str]) -> Any:
    if isinstance(specs, InputSpec):
        return given[public[id(specs)]]
    if isinstance(specs, Mapping):
        return {key: _filled(one, given, public) for key, one in specs.items()}
    return [_filled(one, given, public) for one in specs]


def _to_functional(model: Any, specs: Sequence[InputSpec]) -> _HandOver:
    import keras  # noqa: PLC0415 - a framework is imported only when it is used

    own = _own_inputs(model)
    public: list[str | None] = [None] * len(own)
    for known, spec in _matched(model, own, specs):
        public[own.index(known)] = spec.name
    structure = getattr(model, "input", None)
    if structure is None or (isinstance(structure, list) and len(structure) == 1):
        structure = model.inputs[0]

    def hand_over(given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        flat = [None if name is None else given[name] for name in public]
        packed = keras.tree.pack_sequence_as(structure, flat) if keras.tree.is_nested(structure) else flat[0]
        return (packed,), {}

    return hand_over


def _named(model: Any, answer: Any, inputs: Sequence[str]) -> list[tuple[str, Any]]:
    """The tensors in what the model returned: by their keys in a dict, by a functional model's names, or by number."""
    import keras  # noqa: PLC0415 - a framework is imported only when it is used

    found = [(path, leaf) for path, leaf in keras.tree.flatten_with_path(answer) if leaf is not None]
    if not found:
        raise ExportError("the model returns no tensor: there is nothing to serve")
    labels = [str(path[-1]) if path and isinstance(path[-1], str) else "" for path, _ in found]
    if not all(labels):
        labels = _layer_names(model)
    unique = len(labels) == len(found) == len(set(labels)) and all(labels) and not set(labels) & set(inputs)
    return [(labels[k] if unique else f"output_{k}", leaf) for k, (_, leaf) in enumerate(found)]


def _layer_names(model: Any) -> list[str]:
    """The names of the layers that a functional model's outputs come from; empty where nobody knows."""
    names = getattr(model, "output_names", None)
    if names:
        return list(names)
    return [model.layers[-1].name] if _functional_inputs(model) is not None and model.layers else []
