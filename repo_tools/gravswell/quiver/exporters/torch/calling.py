"""How tensors reach a torch module: by its parameters' names, in their order, as one dict, or as programs want them."""

import inspect
from typing import Any

import torch

from gravswell.errors import InvalidInputError
from gravswell.quiver.datatypes import parse_data_type
from gravswell.quiver.exporters.base import InputSpec


def parameters_of(model: Any, specs: tuple[InputSpec, ...]) -> dict[str, InputSpec]:
    """``forward``'s parameter for each input, in ``forward``'s order: by name where all names fit, else by position."""
    own = own_parameters(model)
    by_name = {spec.name: spec for spec in specs}
    if set(by_name) <= set(own):
        return {name: by_name[name] for name in own if name in by_name}
    if len(specs) > len(own) and own:
        raise InvalidInputError(
            f"{len(specs)} inputs ({', '.join(by_name)}) for {type(model).__name__}.forward({', '.join(own)})"
        )
    return dict(zip(own, specs, strict=False)) if own else by_name


def own_parameters(model: Any) -> list[str]:
    """Those of ``forward`` that are names; none where it takes whatever it is given."""
    if isinstance(model, torch.jit.ScriptModule):
        method: Any = model.forward
        return [argument.name for argument in method.schema.arguments[1:]]  # the first is self
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def keyword_only(model: Any) -> set[str]:
    """Those that ``forward`` takes by name alone."""
    if isinstance(model, torch.jit.ScriptModule):
        return set()
    return {p.name for p in inspect.signature(model.forward).parameters.values() if p.kind is p.KEYWORD_ONLY}


def with_tensors_as_parameters(model: Any, specs: tuple[InputSpec, ...]) -> Any:
    """The module, or one around it where ``forward`` takes a single dict of the inputs."""
    own = own_parameters(model)
    takes_dict = len(own) == 1 < len(specs) and not isinstance(model, torch.jit.ScriptModule)
    return TakingOne(model, [spec.name for spec in specs]) if takes_dict else model


class InOrder(torch.nn.Module):
    """A module that is given its tensors in order; how they reach the one inside, a subclass says."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.training = model.training


class TakingOne(InOrder):
    """To a module whose ``forward`` takes one dict of tensors."""

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the module returns for the dict of them."""
        return self.model(dict(zip(self.names, tensors, strict=True)))


class ByName(InOrder):
    """To a module that takes them by name."""

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the module returns for them."""
        return self.model(**dict(zip(self.names, tensors, strict=True)))


class Program(InOrder):
    """To the module of an exported program, whose arguments it puts together as they were when it was exported."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        module: Any = program.module()
        for refused in ("train", "eval"):  # its mode is in its graph, where a plain module's calls change nothing
            vars(module).pop(refused, None)
        super().__init__(module, list(program.graph_signature.user_inputs))
        self._arguments = program.call_spec.in_spec

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What it returns for them."""
        args, kwargs = torch.utils._pytree.tree_unflatten(tensors, self._arguments)
        return self.model(*args, **kwargs)


def inputs_of(program: torch.export.ExportedProgram) -> tuple[InputSpec, ...]:
    """What an exported program takes, with None for its dynamic dims. InvalidInputError for other than tensors."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    found = []
    for name in map(str, program.graph_signature.user_inputs):
        value = values.get(name)
        if not isinstance(value, torch.Tensor):
            raise InvalidInputError(
                f"the exported program takes {name!r} as a {type(value).__name__}: export the module with tensors alone"
            )
        data_type = parse_data_type(str(value.dtype).removeprefix("torch."), tensor=name)
        found.append(InputSpec(name, data_type, tuple(n if isinstance(n, int) else None for n in value.shape)))
    return tuple(found)
