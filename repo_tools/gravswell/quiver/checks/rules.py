"""The rules of a configuration: what each is called, how bad it is, what Triton does there, and the way out. No checks.

A rule is called ``refused`` only where the embedded Triton refuses it in ``tests/quiver/lint``.
"""

import enum
from dataclasses import dataclass

RULES: "dict[str, Rule]" = {}
"""Every rule by its id, in the order of the tables."""


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

    def at(self, place: str, fact: str, field: str = "", *, unfinished: bool = False) -> "Finding":
        """That this rule is broken at ``place``, in that ``field`` of its configuration, as ``fact`` shows."""
        return Finding(self, place, fact, field, unfinished)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken in one place: a path within the repository."""

    rule: Rule
    place: str
    fact: str
    field: str = ""
    """Path of the field in the configuration: ``instance_group[0].gpus``; empty where no field is to blame."""
    unfinished: bool = False
    """Something is still to be added, so that it is no mistake in the middle of an edit."""

    @property
    def severity(self) -> Severity:
        """The rule's."""
        return self.rule.severity

    def __str__(self) -> str:
        return f"{self.place}: {self.fact} [{self.rule.id}]; {self.rule.way_out}"


def rule(identity: str, severity: Severity, meaning: str, way_out: str) -> Rule:
    """A new rule, entered in the table."""
    made = RULES[identity] = Rule(identity, severity, meaning, way_out)
    return made


_REFUSED, _GUESSED, _IGNORED, _NOTE = Severity

# The backend
PLATFORM_UNKNOWN = rule(
    "platform-unknown",
    _REFUSED,
    "`platform` is none of Triton's, and no `backend` says more.",
    'use one of Triton\'s platforms, such as platform: "onnxruntime_onnx"',
)
PLATFORM_DIFFERS = rule(
    "platform-differs",
    _REFUSED,
    "`platform` and `backend` name two different backends.",
    "take one of them out",
)
PARAMETER_VALUE = rule(
    "parameter-value",
    _REFUSED,
    "One of ONNX Runtime's `parameters` is no whole number, no `execution_mode` that there is, or neither on nor off.",
    "use a whole number; execution_mode is 0 (sequential) or 1 (parallel), enable_mem_… is 0 or 1",
)

# Tensors
BATCH_NEGATIVE = rule(
    "batch-negative",
    _REFUSED,
    "`max_batch_size` is below 0.",
    "set it to 0 for none, or to the largest batch",
)
TENSOR_INCOMPLETE = rule(
    "tensor-incomplete",
    _REFUSED,
    "A tensor of the config lacks its name, its type or its dims, has a dim that is neither -1 nor a size from 1 on, "
    "or is reshaped to another number of elements.",
    "complete it",
)
TENSOR_TWICE = rule(
    "tensor-twice",
    _IGNORED,
    "The config states a tensor twice; one of the two has no effect.",
    "take one of them out",
)
TENSOR_FORMAT = rule(
    "tensor-format",
    _REFUSED,
    "A tensor is stated in a form that its platform does not have: `FORMAT_NHWC` and `FORMAT_NCHW` need three dims, "
    "shape tensors and non-linear formats need TensorRT.",
    "take the field out",
)
BATCH_SOURCE = rule(
    "batch-source",
    _REFUSED,
    "`batch_input` or `batch_output` does not name one input of the model as its source, has another type than "
    "`TYPE_INT32` or `TYPE_FP32`, or writes to what is no output of the model.",
    "name one input as source_input, and outputs, each once, as target_name",
)
WARMUP_INPUT = rule(
    "warmup-input",
    _REFUSED,
    "`model_warmup` does not give the model what it takes: an input is missing, of another type, of other or open "
    "dims, or has no data.",
    "give each input of the model its data_type, plain dims without the batch, and zero_data, random_data or a file",
)
WARMUP_BATCH = rule(
    "warmup-batch",
    _REFUSED,
    "`model_warmup` runs a batch that is larger than `max_batch_size`.",
    "lower batch_size; it is 1 where the model does not batch",
)
WARMUP_SKIPPED = rule(
    "warmup-skipped",
    _IGNORED,
    "A sample of `model_warmup` has no `batch_size`, so that it is never run.",
    "set batch_size from 1 on",
)

# Scheduling
PREFERRED_SIZE = rule(
    "preferred-size",
    _REFUSED,
    "`dynamic_batching` prefers a batch that is larger than `max_batch_size`, or none at all.",
    "raise max_batch_size, or lower preferred_batch_size",
)
PRIORITY_DEFAULT = rule(
    "priority-default",
    _REFUSED,
    "`priority_levels` needs a `default_priority_level` among them.",
    "set default_priority_level from 1 to priority_levels",
)
BATCHING_UNUSED = rule(
    "batching-unused",
    _IGNORED,
    "`dynamic_batching` without a `max_batch_size` above 1 batches nothing.",
    "set max_batch_size, or take dynamic_batching out",
)
PRIORITY_POLICY = rule(
    "priority-policy",
    _REFUSED,
    "`priority_queue_policy` is for a level that `priority_levels` does not have.",
    "use keys from 1 to priority_levels",
)
ORDERING = rule(
    "preserve-ordering",
    _REFUSED,
    "`preserve_ordering` goes neither with several priority levels nor with requests that a timeout delays.",
    "take preserve_ordering out, or the levels and the action DELAY",
)
SEQUENCE_CONTROL = rule(
    "sequence-control",
    _REFUSED,
    "A control of `sequence_batching` has no name, stands there twice, or has other values than its kind: one pair "
    "`…_false_true` for start, end and ready; for the correlation id a data type of integers or strings and no pair.",
    "give each kind of control one tensor of its own, with the values that it needs",
)
SLOT_UTILIZATION = rule(
    "slot-utilization",
    _REFUSED,
    "`minimum_slot_utilization` is no share of the slots.",
    "set it from 0 to 1",
)
CACHE_UNABLE = rule(
    "cache-unable",
    _REFUSED,
    "`response_cache` goes neither with `sequence_batching` nor with a decoupled model.",
    "set response_cache.enable to false",
)
POLICY_EMPTY = rule(
    "policy-empty",
    _REFUSED,
    "`version_policy` chooses no version, whatever there is.",
    "set num_versions from 1 on, or name versions",
)

# Instances
GROUP_GPUS = rule(
    "group-gpus",
    _REFUSED,
    "An instance group of `KIND_CPU` or `KIND_MODEL` names GPUs.",
    "state kind: KIND_GPU, or take gpus out",
)
GROUP_NEEDS_GPU = rule(
    "group-needs-gpu",
    _NOTE,
    "`KIND_GPU`, or `gpus` without a kind, fails the load on a server without a GPU; the count is for each GPU. "
    "`gravswell serve` and the operator put such groups on the CPU where there is no GPU.",
    "nothing, where the servers have GPUs",
)
GROUP_COUNT = rule(
    "group-count",
    _GUESSED,
    "An instance group has no count above 0, so Triton and the backend choose how many instances there are.",
    "state a count from 1 on",
)
GROUP_PROFILE = rule(
    "group-profile",
    _REFUSED,
    "An instance group names a `profile`, and only TensorRT has them; there it is the text of a number.",
    "take profile out",
)
RESOURCE_COUNT = rule(
    "resource-count",
    _IGNORED,
    "A resource of `rate_limiter` has no count above 0, so that it limits nothing.",
    "set count from 1 on",
)
RESOURCE_SCOPE = rule(
    "resource-scope",
    _NOTE,
    "A resource of `rate_limiter` is `global` in one place and of each device in another: the load fails where the "
    "server limits rates (`--rate-limit=execution_count`).",
    "make it global everywhere or nowhere",
)

# Ensembles
ENSEMBLE_EMPTY = rule(
    "ensemble-empty",
    _REFUSED,
    "The platform is `ensemble`, and `ensemble_scheduling` has no step.",
    "add a step",
)
ENSEMBLE_INSTANCES = rule(
    "ensemble-instances",
    _REFUSED,
    "An ensemble has an `instance_group`, and has no instances of its own.",
    "take it out: the members state theirs",
)
TENSOR_UNMADE = rule(
    "tensor-unmade",
    _REFUSED,
    "A step takes, or the ensemble gives, a tensor that is neither an input of the ensemble nor made by a step.",
    "map it from an input, or from a step's output",
)
ENSEMBLE_PLATFORM = rule(
    "ensemble-platform",
    _REFUSED,
    '`ensemble_scheduling` needs `platform: "ensemble"` and no `backend`.',
    'set platform: "ensemble", and take backend out',
)
ENSEMBLE_SECTION = rule(
    "ensemble-section",
    _REFUSED,
    "An ensemble has `optimization` or `model_warmup`, and runs nothing itself.",
    "take it out: the members state theirs",
)
STEP_INCOMPLETE = rule(
    "step-incomplete",
    _REFUSED,
    "A step lacks `model_name`, `model_version`, `input_map` or `output_map`. Without a version it stands for "
    "version 0.",
    "state it; model_version: -1 is the latest",
)
TENSOR_REWRITTEN = rule(
    "tensor-rewritten",
    _REFUSED,
    "Two steps make the same tensor of an ensemble, or one makes an input. Triton loads the latter, and a request then "
    "starts the steps again and again.",
    "give each its own name",
)
TENSOR_UNUSED = rule(
    "tensor-unused",
    _REFUSED,
    "An input of the ensemble, or what a step makes, is taken by no step and is no output.",
    "take it out, or use it",
)
