"""The rules: what each is called, how bad it is, what Triton does there, and the way out. One table, and no checks.

``docs/lint.md`` is made from it (``python -m gravswell.quiver.lint.document``).
"""

import enum
from dataclasses import dataclass

RULES: "dict[str, Rule]" = {}
"""Every rule by its id, in the order of the table."""


class Severity(enum.StrEnum):
    """What Triton does about it, the worst first."""

    REFUSED = "refused"
    """The model does not load."""
    GUESSED = "guessed"
    """It loads, with a value that Triton made up."""
    IGNORED = "ignored"
    """It loads, and what was written there has no effect."""
    NOTE = "note"
    """It loads; whether it serves as meant depends on the machine, or on who asks."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that can be wrong. ``id`` is stable: scripts name it."""

    id: str
    severity: Severity
    meaning: str
    way_out: str

    def at(self, place: str, fact: str) -> "Finding":
        """That this rule is broken at ``place``, as ``fact`` shows."""
        return Finding(self, place, fact)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken in one place: a path within the repository."""

    rule: Rule
    place: str
    fact: str

    @property
    def severity(self) -> Severity:
        """The rule's."""
        return self.rule.severity

    def __str__(self) -> str:
        return f"{self.place}: {self.fact} [{self.rule.id}]; {self.rule.way_out}"


def _rule(identity: str, severity: Severity, meaning: str, way_out: str) -> Rule:
    rule = RULES[identity] = Rule(identity, severity, meaning, way_out)
    return rule


_REFUSED, _GUESSED, _IGNORED, _NOTE = Severity

# Folders and names
NO_MODEL = _rule(
    "no-model",
    _REFUSED,
    "Triton takes every folder of the root for a model, and this one holds none.",
    "move it out of the repository",
)
NAME_DIFFERS = _rule(
    "name-differs",
    _REFUSED,
    "The config's `name` is not the folder's.",
    "set name to the folder's, or take the line out",
)
NAME_UNUSABLE = _rule(
    "name-unusable",
    _NOTE,
    "Triton loads a model of that name, but clients cannot reach it over HTTP, or gravswell's readers hide it.",
    "rename the folder: letters, digits, '_', '-' and '.', starting with a letter, a digit or '_'",
)
NO_VERSION = _rule(
    "no-version",
    _REFUSED,
    "The model has no version that Triton would load, by the version policy of its config.",
    "export a version, or name one that exists in version_policy",
)
VERSION_MISREAD = _rule(
    "version-misread",
    _REFUSED,
    "Triton reads leading digits as the number, so `2.tmp` is version 2 and `-1` is version -1; it then loads the "
    "folder of that number, which is not there.",
    "rename the folder to its plain number, or move it out of the model's folder",
)
VERSION_STRAY = _rule(
    "version-stray",
    _IGNORED,
    "A folder beside the versions whose name is no number from 1 on: Triton, or gravswell's readers, pass over it.",
    "rename it to a plain number, or move it out: a newer time of it makes Triton reload every version",
)
FILE_STRAY = _rule(
    "file-stray",
    _IGNORED,
    "A file beside the versions that nothing in the config names.",
    "move it out: a newer time of it makes Triton reload every version",
)
POLICY_ABSENT = _rule(
    "policy-absent",
    _IGNORED,
    "`version_policy` names a version that is not there; Triton says so in its log only.",
    "export that version, or take its number out of version_policy",
)
FILE_MISSING = _rule(
    "file-missing",
    _REFUSED,
    "A version that Triton would load lacks the model file.",
    "put the file there, name it in default_model_filename, or remove the version",
)

# The config
CONFIG_MISSING = _rule(
    "config-missing",
    _GUESSED,
    "There is no `config.pbtxt`: Triton makes one up of the graph, with `max_batch_size: 4` and dynamic batching where "
    "every tensor leads with a dynamic dim.",
    "write config.pbtxt with inputs, outputs and max_batch_size (gravswell import does)",
)
CONFIG_UNREADABLE = _rule(
    "config-unreadable",
    _REFUSED,
    "`config.pbtxt` is no text form of a ModelConfig.",
    "mend the line that is named",
)
FIELD_UNKNOWN = _rule(
    "field-unknown",
    _REFUSED,
    "The config holds a field that Triton's ModelConfig does not have, as far as this release knows.",
    "take it out, or serve it with a Triton that is new enough to know it",
)
PLATFORM_GUESSED = _rule(
    "platform-guessed",
    _GUESSED,
    "Neither `platform` nor `backend` is stated: Triton goes by the model file's name.",
    'state it, such as platform: "onnxruntime_onnx"',
)
PLATFORM_UNKNOWN = _rule(
    "platform-unknown",
    _REFUSED,
    "`platform` is none of Triton's, and no `backend` says more.",
    'use one of Triton\'s platforms, such as platform: "onnxruntime_onnx"',
)
PLATFORM_DIFFERS = _rule(
    "platform-differs",
    _REFUSED,
    "`platform` and `backend` name two different backends.",
    "take one of them out",
)
BATCH_NEGATIVE = _rule(
    "batch-negative",
    _REFUSED,
    "`max_batch_size` is below 0.",
    "set it to 0 for none, or to the largest batch",
)
TENSORS_GUESSED = _rule(
    "tensors-guessed",
    _GUESSED,
    "`input` or `output` is not stated: Triton fills in what is missing from the graph, and with it "
    "`max_batch_size: 4` and dynamic batching where every tensor leads with a dynamic dim.",
    "state inputs and outputs in full",
)
TENSOR_INCOMPLETE = _rule(
    "tensor-incomplete",
    _REFUSED,
    "A tensor of the config lacks its name, its type or its dims, has a dim that is neither -1 nor a size from 1 on, "
    "or is reshaped to another number of elements.",
    "complete it",
)
TENSOR_TWICE = _rule(
    "tensor-twice",
    _IGNORED,
    "The config states a tensor twice; one of the two has no effect.",
    "take one of them out",
)

# The config against the graph
GRAPH_UNLOADABLE = _rule(
    "graph-unloadable",
    _REFUSED,
    "ONNX Runtime does not load the model file.",
    "export the model again, or restore the file",
)
TENSOR_UNSERVABLE = _rule(
    "tensor-unservable",
    _REFUSED,
    "The graph has an input or output that is no plain tensor of numbers, booleans or strings.",
    "have the model take and return plain tensors",
)
TENSOR_UNKNOWN = _rule(
    "tensor-unknown",
    _REFUSED,
    "The config states a tensor that the graph does not have.",
    "use the graph's own names",
)
INPUT_MISSING = _rule(
    "input-missing",
    _REFUSED,
    "The config states some inputs, and leaves out one that the graph needs.",
    "state it too",
)
OUTPUT_MISSING = _rule(
    "output-missing",
    _IGNORED,
    "The graph has an output that the config leaves out: no client can ask for it.",
    "state it, if anybody shall have it",
)
TYPE_DIFFERS = _rule("type-differs", _REFUSED, "The config states another type than the graph's.", "use the graph's")
DIMS_DIFFER = _rule(
    "dims-differ",
    _REFUSED,
    "The config's dims are not the graph's. With a `max_batch_size`, stated or filled in, the batch dim is left out; "
    "an input may state a size where the graph takes any, an output may not.",
    "use the graph's dims",
)
NOT_BATCHABLE = _rule(
    "not-batchable",
    _REFUSED,
    "`max_batch_size` is above 0, and a tensor of the graph has no dynamic first dim.",
    "set max_batch_size to 0, or export the model with a dynamic batch",
)
DATA_OUTSIDE = _rule(
    "data-outside",
    _REFUSED,
    "A tensor keeps its data in a file outside the version's folder: an absolute path, `..`, or a link. Older servers "
    "read that file, whatever it is; newer ones refuse.",
    "save the model with its data beside it",
)
DATA_MISSING = _rule(
    "data-missing",
    _REFUSED,
    "A tensor keeps its data in a file that is not there.",
    "put the data file beside the model file",
)
FILE_TOO_LARGE = _rule(
    "file-too-large",
    _REFUSED,
    "The model file is 2 GiB or larger, which protobuf cannot read.",
    "save the model with its tensors as external data",
)
OPSET_TOO_NEW = _rule(
    "opset-too-new",
    _REFUSED,
    "The ONNX Runtime of the server that is asked for (`--tag`) has no such opset.",
    "export with an older opset, or serve with a newer Triton",
)
IR_TOO_NEW = _rule(
    "ir-too-new",
    _REFUSED,
    "The ONNX Runtime of the server that is asked for (`--tag`) does not read that IR version.",
    "save the model with an older IR version, or serve with a newer Triton",
)

# Scheduling
PREFERRED_SIZE = _rule(
    "preferred-size",
    _REFUSED,
    "`dynamic_batching` prefers a batch that is larger than `max_batch_size`, or none at all.",
    "raise max_batch_size, or lower preferred_batch_size",
)
PRIORITY_DEFAULT = _rule(
    "priority-default",
    _REFUSED,
    "`priority_levels` needs a `default_priority_level` among them.",
    "set default_priority_level from 1 to priority_levels",
)
BATCHING_UNUSED = _rule(
    "batching-unused",
    _IGNORED,
    "`dynamic_batching` without a `max_batch_size` above 1 batches nothing.",
    "set max_batch_size, or take dynamic_batching out",
)
GROUP_GPUS = _rule(
    "group-gpus",
    _REFUSED,
    "An instance group on the CPU names GPUs. A group without a kind is one, where the server has no GPU.",
    "state kind: KIND_GPU, or take gpus out",
)
GROUP_NEEDS_GPU = _rule(
    "group-needs-gpu",
    _NOTE,
    "`KIND_GPU` fails the load on a server without a GPU; its count is for each GPU. `gravswell serve` and the "
    "operator put such groups on the CPU where there is no GPU.",
    "nothing, where the servers have GPUs",
)
GROUP_COUNT = _rule(
    "group-count",
    _GUESSED,
    "An instance group has no count above 0, so Triton and the backend choose how many instances there are.",
    "state a count from 1 on",
)
WARMUP_FILE = _rule(
    "warmup-file",
    _REFUSED,
    "`model_warmup` names an `input_data_file` that is not in the model's folder `warmup`.",
    "put the file there, or warm up with zero_data or random_data",
)
LABELS_MISSING = _rule(
    "labels-missing",
    _REFUSED,
    "An output's `label_filename` is not in the model's folder.",
    "put the file there, or take the line out",
)

# Ensembles
ENSEMBLE_EMPTY = _rule(
    "ensemble-empty",
    _REFUSED,
    "The platform is `ensemble`, and `ensemble_scheduling` has no step.",
    "add a step",
)
ENSEMBLE_INSTANCES = _rule(
    "ensemble-instances",
    _REFUSED,
    "An ensemble has an `instance_group`, and has no instances of its own.",
    "take it out: the members state theirs",
)
STEP_MISSING = _rule(
    "step-missing",
    _REFUSED,
    "A step names a model that is not in the repository.",
    "add the model, or mend the name",
)
STEP_VERSION = _rule(
    "step-version",
    _REFUSED,
    "A step names a version that its model's version policy does not load.",
    "export that version, or use model_version: -1 for the latest",
)
STEP_TENSOR = _rule(
    "step-tensor",
    _REFUSED,
    "A step maps a tensor that its model does not have.",
    "use the member's own names as keys of input_map and output_map",
)
TENSOR_UNMADE = _rule(
    "tensor-unmade",
    _REFUSED,
    "A step takes, or the ensemble gives, a tensor that is neither an input of the ensemble nor made by a step.",
    "map it from an input, or from a step's output",
)

# Ours
CONFIG_UNPUBLISHED = _rule(
    "config-unpublished",
    _NOTE,
    "`config.pbtxt` says something else than the config that the newest version was published with. Agents serve the "
    "latter; plain Triton the former.",
    "publish the edit with the next version",
)
