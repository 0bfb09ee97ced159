"""One opset and one IR version for the graphs of several models, which one graph has to have."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, defs, version_converter

from gravswell.errors import ExportError
from gravswell.quiver.exporters.base import described
from gravswell.quiver.exporters.fused.singles import Single
from gravswell.quiver.exporters.graph import every_node, fit_for_serving
from gravswell.targets import Target

LEAST_OPSET = 13
"""What the routing itself is written in."""

LEAST_IR = 4
"""From here on an initializer need not be an input too."""


@dataclass(frozen=True, slots=True)
class Level:
    """What one graph declares."""

    opsets: dict[str, int]
    ir_version: int


def equalized(models: Sequence[Single], target: Target, opset: int | None) -> tuple[list[ModelProto], Level]:
    """The graphs of ``models`` in the newest opset among them, and that level; nothing of ``models`` is changed.

    ExportError names the model that cannot be brought there, with both numbers.
    """
    fitted = [_fitted(model, target) for model in models]
    imports = [_imports(proto) for proto in fitted]
    wanted: dict[str, int] = {"": LEAST_OPSET}
    for opsets in imports:
        for domain, version in opsets.items():
            wanted[domain] = max(wanted.get(domain, 0), version)
    if opset is not None:
        if opset < wanted[""]:
            newest = next(m.label for m, opsets in zip(models, imports, strict=True) if opsets.get("") == wanted[""])
            raise ExportError(f"{newest} is in opset {wanted['']}, and opset={opset} was asked for: leave it out")
        wanted[""] = opset
    raised = [
        _raised(model, proto, opsets, wanted) for model, proto, opsets in zip(models, fitted, imports, strict=True)
    ]
    ir = max(LEAST_IR, *(int(proto.ir_version) for proto in raised))
    return raised, Level(wanted, min(ir, target.ir_version))


def _fitted(model: Single, target: Target) -> ModelProto:
    try:
        return fit_for_serving(model.proto, target)[0]
    except ExportError as error:
        raise ExportError(f"{model.label}: {error}") from error


def _imports(proto: ModelProto) -> dict[str, int]:
    return {"" if o.domain == "ai.onnx" else o.domain: int(o.version) for o in proto.opset_import}


def _raised(model: Single, proto: ModelProto, have: dict[str, int], wanted: dict[str, int]) -> ModelProto:
    for domain, version in have.items():
        if domain and version < wanted[domain]:
            _check_unchanged(model, proto, domain, version, wanted[domain])
    if have.get("", wanted[""]) == wanted[""]:
        return proto
    try:
        return version_converter.convert_version(proto, wanted[""])
    except Exception as error:  # the converter raises what its C++ raises
        raise ExportError(
            f"{model.label} is in opset {have['']}, the fusion needs {wanted['']}, which another model is in, and ONNX "
            f"cannot raise it ({described(error)}): export both with one opset"
        ) from error


def _check_unchanged(model: Single, proto: ModelProto, domain: str, have: int, wanted: int) -> None:
    """There is no converter for other domains: every operator has to mean the same in both versions."""
    for node in every_node(proto):
        if node.domain != domain:
            continue
        try:
            old, new = (defs.get_schema(node.op_type, version, domain) for version in (have, wanted))
            alike = _takes_as_much(old, new, node)
        except defs.SchemaError:  # of a domain that is not ONNX's: nobody says what changed
            alike = False
        if not alike:
            raise ExportError(
                f"{model.label} is in opset {have} of {domain}, the fusion needs {wanted}, which another model is in, "
                f"and its {node.op_type} is another one there: export both with one opset of {domain}"
            )


def _takes_as_much(old: defs.OpSchema, new: defs.OpSchema, node: NodeProto) -> bool:
    """Whether the node, written for the ``old`` version of its operator, is one of the ``new`` version too."""
    if old.since_version == new.since_version:
        return True
    attributes = {a.name for a in node.attribute}
    required = {name for name, attribute in new.attributes.items() if attribute.required}
    alike = len(old.inputs) == len(new.inputs) and len(old.outputs) == len(new.outputs)
    return alike and not new.deprecated and attributes <= set(new.attributes) and required <= attributes
