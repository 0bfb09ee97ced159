"""The rules of a repository: folders, files, graphs and members. Those of a configuration alone are in
:mod:`gravswell.quiver.checks.rules`, and both are in one table.

``docs/lint.md`` is made from it (``python -m gravswell.quiver.lint.document``).
"""

from gravswell.quiver.checks.rules import RULES, Finding, Rule, Severity, rule

__all__ = ["RULES", "Finding", "Rule", "Severity"]

_REFUSED, _GUESSED, _IGNORED, _NOTE = Severity

# Folders and names
NO_MODEL = rule(
    "no-model",
    _REFUSED,
    "Triton takes every folder of the root for a model, and this one holds none.",
    "move it out of the repository",
)
NAME_DIFFERS = rule(
    "name-differs",
    _REFUSED,
    "The config's `name` is not the folder's.",
    "set name to the folder's, or take the line out",
)
NAME_UNUSABLE = rule(
    "name-unusable",
    _NOTE,
    "Triton loads a model of that name, but clients cannot reach it over HTTP, or gravswell's readers hide it.",
    "rename the folder: letters, digits, '_', '-' and '.', starting with a letter, a digit or '_'",
)
NO_VERSION = rule(
    "no-version",
    _REFUSED,
    "The model has no version that Triton would load, by the version policy of its config.",
    "export a version, or name one that exists in version_policy",
)
VERSION_MISREAD = rule(
    "version-misread",
    _REFUSED,
    "Triton reads leading digits as the number, so `2.tmp` is version 2 and `-1` is version -1; it then loads the "
    "folder of that number, which is not there.",
    "rename the folder to its plain number, or move it out of the model's folder",
)
VERSION_STRAY = rule(
    "version-stray",
    _IGNORED,
    "A folder beside the versions whose name is no number from 1 on: Triton, or gravswell's readers, pass over it.",
    "rename it to a plain number, or move it out: a newer time of it makes Triton reload every version",
)
FILE_STRAY = rule(
    "file-stray",
    _IGNORED,
    "A file beside the versions that nothing in the config names.",
    "move it out: a newer time of it makes Triton reload every version",
)
POLICY_ABSENT = rule(
    "policy-absent",
    _IGNORED,
    "`version_policy` names a version that is not there; Triton says so in its log only.",
    "export that version, or take its number out of version_policy",
)
FILE_MISSING = rule(
    "file-missing",
    _REFUSED,
    "A version that Triton would load lacks the model file.",
    "put the file there, name it in default_model_filename, or remove the version",
)

# The config
CONFIG_MISSING = rule(
    "config-missing",
    _GUESSED,
    "There is no `config.pbtxt`: Triton makes one up of the graph, with `max_batch_size: 4` and dynamic batching where "
    "every tensor leads with a dynamic dim.",
    "write config.pbtxt with inputs, outputs and max_batch_size (gravswell import does)",
)
CONFIG_UNREADABLE = rule(
    "config-unreadable",
    _REFUSED,
    "`config.pbtxt` is no text form of a ModelConfig.",
    "mend the line that is named",
)
FIELD_UNKNOWN = rule(
    "field-unknown",
    _REFUSED,
    "The config holds a field that Triton's ModelConfig does not have, as far as this release knows.",
    "take it out, or serve it with a Triton that is new enough to know it",
)
PLATFORM_GUESSED = rule(
    "platform-guessed",
    _GUESSED,
    "Neither `platform` nor `backend` is stated: Triton goes by the model file's name.",
    'state it, such as platform: "onnxruntime_onnx"',
)
TENSORS_GUESSED = rule(
    "tensors-guessed",
    _GUESSED,
    "`input` or `output` is not stated: Triton fills in what is missing from the graph, and with it "
    "`max_batch_size: 4` and dynamic batching where every tensor leads with a dynamic dim.",
    "state inputs and outputs in full",
)

# The config against the graph
GRAPH_UNLOADABLE = rule(
    "graph-unloadable",
    _REFUSED,
    "ONNX Runtime does not load the model file.",
    "export the model again, or restore the file",
)
TENSOR_UNSERVABLE = rule(
    "tensor-unservable",
    _REFUSED,
    "The graph has an input or output that is no plain tensor of numbers, booleans or strings.",
    "have the model take and return plain tensors",
)
TENSOR_UNKNOWN = rule(
    "tensor-unknown",
    _REFUSED,
    "The config states a tensor that the graph does not have.",
    "use the graph's own names",
)
INPUT_MISSING = rule(
    "input-missing",
    _REFUSED,
    "The config states some inputs, and leaves out one that the graph needs.",
    "state it too",
)
OUTPUT_MISSING = rule(
    "output-missing",
    _IGNORED,
    "The graph has an output that the config leaves out: no client can ask for it.",
    "state it, if anybody shall have it",
)
TYPE_DIFFERS = rule("type-differs", _REFUSED, "The config states another type than the graph's.", "use the graph's")
DIMS_DIFFER = rule(
    "dims-differ",
    _REFUSED,
    "The config's dims are not the graph's. With a `max_batch_size`, stated or filled in, the batch dim is left out; "
    "an input may state a size where the graph takes any, an output may not.",
    "use the graph's dims",
)
NOT_BATCHABLE = rule(
    "not-batchable",
    _REFUSED,
    "`max_batch_size` is above 0, and a tensor of the graph has no dynamic first dim.",
    "set max_batch_size to 0, or export the model with a dynamic batch",
)
DATA_OUTSIDE = rule(
    "data-outside",
    _REFUSED,
    "A tensor keeps its data in a file outside the version's folder: an absolute path, `..`, or a link. Older servers "
    "read that file, whatever it is; newer ones refuse.",
    "save the model with its data beside it",
)
DATA_MISSING = rule(
    "data-missing",
    _REFUSED,
    "A tensor keeps its data in a file that is not there.",
    "put the data file beside the model file",
)
FILE_TOO_LARGE = rule(
    "file-too-large",
    _REFUSED,
    "The model file is 2 GiB or larger, which protobuf cannot read.",
    "save the model with its tensors as external data",
)
OPSET_TOO_NEW = rule(
    "opset-too-new",
    _REFUSED,
    "The ONNX Runtime of the server that is asked for (`--target`) has no such opset.",
    "export with an older opset, or serve with a newer Triton",
)
IR_TOO_NEW = rule(
    "ir-too-new",
    _REFUSED,
    "The ONNX Runtime of the server that is asked for (`--target`) does not read that IR version.",
    "save the model with an older IR version, or serve with a newer Triton",
)

# Scheduling
WARMUP_FILE = rule(
    "warmup-file",
    _REFUSED,
    "`model_warmup` names an `input_data_file` that is not in the model's folder `warmup`.",
    "put the file there, or warm up with zero_data or random_data",
)
LABELS_MISSING = rule(
    "labels-missing",
    _REFUSED,
    "An output's `label_filename` is not in the model's folder.",
    "put the file there, or take the line out",
)

# Ensembles
STEP_MISSING = rule(
    "step-missing",
    _REFUSED,
    "A step names a model that is not in the repository.",
    "add the model, or mend the name",
)
STEP_VERSION = rule(
    "step-version",
    _REFUSED,
    "A step names a version that its model's version policy does not load.",
    "export that version, or use model_version: -1 for the latest",
)
STEP_TENSOR = rule(
    "step-tensor",
    _REFUSED,
    "A step maps a tensor that its model does not have.",
    "use the member's own names as keys of input_map and output_map",
)

# Business logic
MEMBER_MISSING = rule(
    "member-missing",
    _NOTE,
    "A pipeline of Python functions calls a version that is not in the repository: it loads, and its requests fail.",
    "copy the member here, or export the pipeline again",
)
MEMBER_VERSION = rule(
    "member-version",
    _NOTE,
    "A pipeline of Python functions calls a version that its model's version policy does not load, so that its "
    "requests fail on a plain Triton. `gravswell serve` and agents load members by themselves.",
    "name the version in the member's version_policy",
)

# Ours
CONFIG_UNPUBLISHED = rule(
    "config-unpublished",
    _NOTE,
    "`config.pbtxt` says something else than the config that the newest version was published with. Agents serve the "
    "latter; plain Triton the former.",
    "publish the edit with the next version",
)
