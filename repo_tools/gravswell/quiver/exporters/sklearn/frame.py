"""Estimators that begin with a ``ColumnTransformer`` and were fitted on a DataFrame: an input for each of its columns.

pandas is imported only for these: whoever fitted one had it.
"""

from typing import Any

import numpy as np

from gravswell.errors import ExportError, InvalidInputError, UnsupportedError
from gravswell.quiver.exporters.base import ExportRequest, Inputs, InputSpec
from gravswell.quiver.exporters.drawing import Known
from gravswell.quiver.exporters.sklearn.scale import first_step, known_values, parts, positions, works
from gravswell.quiver.golden import Array

_LOCALE = "C.UTF-8"
"""By which texts are lowered: it needs no language pack, which the converter's own choice does, and servers lack."""

_DEFAULT_PATTERN = r"(?u)\b\w\w+\b"
"""scikit-learn's own words."""

_WORD = r"[\p{L}\p{N}_][\p{L}\p{N}_]+"
"""The same for ONNX Runtime, whose ``\\w`` is ASCII alone."""


def fitted_columns(model: Any) -> list[str] | None:
    """The columns of the DataFrame that the estimator was fitted on; None where a plain table serves it."""
    first = first_step(model)
    names = getattr(first, "feature_names_in_", None)
    return None if names is None or not hasattr(first, "transformers_") else [str(name) for name in names]


def used_columns(model: Any) -> list[str]:
    """Those of the :func:`fitted_columns` that are not dropped."""
    first, columns = first_step(model), fitted_columns(model) or []
    every = np.arange(len(columns))
    used: set[int] = set()
    for _, step, chosen in first.transformers_:
        if works(step) or step == "passthrough":
            found = positions(chosen, every, first.feature_names_in_)
            used.update(every.tolist() if found is None else found.tolist())
    return [name for k, name in enumerate(columns) if k in used]


def takes_columns(model: Any, names: list[str]) -> bool:
    """Whether inputs of these ``names`` are columns of the estimator's, and not one table of them all."""
    columns = fitted_columns(model)
    return columns is not None and (len(names) > 1 or set(names) <= set(columns))


def column_specs(request: ExportRequest) -> tuple[InputSpec, ...]:
    """An input ``(None, 1)`` for each column that is used, of the type that was declared, or else of what is known."""
    columns, used = fitted_columns(request.model) or [], used_columns(request.model)
    asked = {spec.name: spec for spec in request.inputs or ()}
    if asked and set(asked) != set(used):
        raise InvalidInputError(
            f"the estimator takes the columns {', '.join(used)}, not {', '.join(asked)}: an input for each of them, "
            f"of shape (None, 1); without input_shapes they are taken as they are"
        )
    known = known_values(request.model)
    specs = []
    for name in used:
        spec = asked.get(name, InputSpec(name, None, (None, 1)))
        if spec.shape != (None, 1):
            raise InvalidInputError(f"input {name!r} has shape {spec.shape}: a column is (None, 1)")
        found = known.get(columns.index(name), [])
        data_type = spec.data_type or _known_type(found) or _sampled_type(request, name) or "TYPE_FP32"
        specs.append(InputSpec(name, data_type, spec.shape))
    return tuple(specs)


def _known_type(known: list[Known]) -> str | None:
    """The type of the texts or categories that a step was fitted on."""
    if any(values.dtype.kind in "UOT" for values, _ in known):
        return "TYPE_STRING"
    kinds = {values.dtype.kind for values, kind in known if kind == "members"}
    return "TYPE_INT64" if kinds and kinds <= set("iu") else None


def _sampled_type(request: ExportRequest, name: str) -> str | None:
    if not request.samples or name not in request.samples[0]:
        return None
    kind = np.asarray(request.samples[0][name]).dtype.kind
    return {"i": "TYPE_INT64", "u": "TYPE_INT64", "U": "TYPE_STRING", "O": "TYPE_STRING"}.get(kind)


def require_known_texts(model: Any, specs: tuple[InputSpec, ...]) -> None:
    """Raise ExportError for a column of texts of which the estimator knows no values: none can be made up for it."""
    columns, known = fitted_columns(model), known_values(model)
    texts = {s.name: k if columns is None else columns.index(s.name) for k, s in enumerate(specs) if _is_text(s)}
    free = [name for name, column in texts.items() if not any(kind == "members" for _, kind in known.get(column, []))]
    if free:
        raise ExportError(
            f"nothing but real texts proves what the estimator makes of {', '.join(free)}: give rows of yours as "
            f"sample_inputs, a DataFrame or an array of shape (rows, 1) for each input (--sample-inputs FILE.npz)"
        )


def _is_text(spec: InputSpec) -> bool:
    return spec.data_type == "TYPE_STRING"


def vectorizers(model: Any) -> list[Any]:
    """Every step, at any depth, that takes texts apart."""
    return [part for part in parts(model) if hasattr(part, "vocabulary_")]


def text_options(vectorizer: Any) -> dict[str, str]:
    """What the converter is told of a step that takes texts apart, for words of every script."""
    options = {"locale": _LOCALE}
    if vectorizer.analyzer == "word" and vectorizer.tokenizer is None and vectorizer.token_pattern == _DEFAULT_PATTERN:
        options["tokenexp"] = _WORD
    return options


def as_frame(inputs: Inputs) -> Any:
    """A batch as the DataFrame that the estimator was fitted on."""
    try:
        import pandas as pd  # noqa: PLC0415 - only for estimators that were fitted with it
    except ImportError:
        raise UnsupportedError(
            "the estimator was fitted on a DataFrame, and its own answers are needed: pip install pandas"
        ) from None
    return pd.DataFrame({name: as_fitted(array[:, 0]) for name, array in inputs.items()})


def as_fitted(values: Array) -> Array:
    """The input in the type that estimators are mostly fitted on."""
    return np.asarray(values.astype({"U": object, "f": np.float64}.get(values.dtype.kind, values.dtype)))
