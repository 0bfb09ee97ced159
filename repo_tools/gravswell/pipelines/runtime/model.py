"""The ``model.py`` of a pipeline with business logic: the user's function, whose members are asked as Triton's models.

It lies in the version's folder, beside ``gravswell_calling.py``, which knows how a function is called, and runs inside
Triton's Python stub: it needs Python 3.8 and numpy, and nothing of gravswell. The config's ``parameters`` say where the
members are on this server (``gravswell.member.<alias>``) and, where packages were installed for this version, in which
folder (``gravswell.environment``).

The requests of a batch are answered one by one: the function gets the arrays of one request, rows and all.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists in the stub only

MEMBER = "gravswell.member."
ENVIRONMENT = "gravswell.environment"
REQUIREMENTS = "requirements.txt"

WAY_OUT = (
    "`gravswell serve` installs what a pipeline imports; for another Triton, put it into the image, or into an "
    "execution environment that the config names (EXECUTION_ENV_PATH)"
)


class PipelineError(Exception):
    """Why a pipeline cannot load, in words for whoever asked."""


class MemberError(Exception):
    """Why a member gave no answer; the function may catch it."""


class TritonPythonModel:
    """One instance of one version, in its own process."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the user's source and bind its members; nothing is asked of them yet."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self._told = f"pipeline '{config['name']}'"
        # Its path as Triton has it, links and all: so Python names the files in a traceback.
        self._folder = Path(args["model_repository"]) / args["model_version"]
        self._places = {}
        for name, value in parameters.items():
            if name.startswith(MEMBER):
                alias, (model, _, version) = name[len(MEMBER) :], value.rpartition(":")
                if (model, version) == (args["model_name"], args["model_version"]):
                    raise PipelineError(f"{self._told} has itself as member '{alias}', and would wait for ever")
                self._places[alias] = (model, int(version))
        if parameters.get(ENVIRONMENT):
            sys.path.insert(behind_python(), parameters[ENVIRONMENT])
        sys.path.insert(0, str(self._folder))
        sys.dont_write_bytecode = True  # a version never changes
        self._pipeline = self._loaded()
        for requirement in missing(self._folder):  # imported by a function when it is called, or under another name
            pb_utils.Logger.log_warn(f"{self._told}: {requirement} is not installed here; {WAY_OUT}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by a call of the function; what fails is told to that request's client alone."""
        return [self._answered(request) for request in requests]

    def _loaded(self) -> Any:
        import gravswell_calling as calling  # type: ignore[import-not-found]  # noqa: PLC0415  on the path only now

        self._calling = calling
        try:
            pipeline = calling.load(self._folder, self._call)
        except ImportError as error:
            numpy = f" (with numpy {np.__version__})" if "numpy" in str(error) else ""
            raise PipelineError(f"{self._told} cannot import what it needs: {error}{numpy}{self._lacks()}") from None
        except Exception as error:
            raise PipelineError(f"{self._told} failed to load: {self._words(error)}") from error
        unknown = sorted(pipeline.members.keys() - self._places.keys())
        if unknown:
            raise PipelineError(
                f"{self._told} calls {', '.join(unknown)}, and its config has no parameter {MEMBER}{unknown[0]}: "
                f"take it from the version's .config.pbtxt"
            )
        return pipeline

    def _answered(self, request: Any) -> Any:
        try:
            given = {tensor.name(): self._received(tensor) for tensor in request.inputs()}
            answers = self._pipeline(given)
            wanted = request.requested_output_names()
            return pb_utils.InferenceResponse(output_tensors=[self._sent(name, answers[name]) for name in wanted])
        except Exception as error:  # noqa: BLE001  whatever failed belongs to this request's client
            words = f"{self._told}: {self._words(error)}"
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(words))

    def _call(self, alias: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Ask the member ``alias``, which may be at work for others too: Triton queues this among theirs."""
        model, version = self._places[alias]
        request = pb_utils.InferenceRequest(
            model_name=model,
            model_version=version,
            requested_output_names=list(self._pipeline.members[alias][1]),
            inputs=[self._sent(name, array) for name, array in inputs.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            words = response.error().message().replace(model, alias)  # what a server calls it is nobody's business
            raise MemberError(f"member '{alias}' failed: {words}")
        return {tensor.name(): self._received(tensor) for tensor in response.output_tensors()}

    def _received(self, tensor: Any) -> Any:
        array = tensor.as_numpy()
        try:
            return self._calling.decoded(array) if array.dtype.kind in "OSU" else array
        except ValueError as error:
            raise ValueError(f"tensor '{tensor.name()}': {error}") from None

    def _sent(self, name: str, array: Any) -> Any:
        return pb_utils.Tensor(name, self._calling.encoded(array) if array.dtype.kind in "OSU" else array)

    def _words(self, error: BaseException) -> str:
        """What went wrong, and in which line of the user's source."""
        what = str(error) if isinstance(error, MemberError) else f"{type(error).__name__}: {error}"
        own = [  # beside this file there is only ours; the user's lies deeper
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if self._folder in Path(frame.filename).parents and Path(frame.filename).parent != self._folder
        ]
        line = f" (in {own[-1].name}, {Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""
        return what + line + (self._lacks() if isinstance(error, ImportError) else "")

    def _lacks(self) -> str:
        """What is not installed of the version's requirements and the ways out, as the end of a message."""
        absent = missing(self._folder)
        return f"; of its {REQUIREMENTS} this server lacks {', '.join(absent)}: {WAY_OUT}" if absent else ""


def behind_python() -> int:
    """Where on the path the packages of a version belong: behind Python's own modules, and before the server's, which
    may be of other versions than were asked for. NumPy is not among them: the stub works with its own alone.
    """
    kept = [place for place, folder in enumerate(sys.path) if Path(folder).name in ("site-packages", "dist-packages")]
    return kept[0] if kept else len(sys.path)


def missing(folder: Path) -> list[str]:
    """Those lines of the version's requirements whose package is not installed here, whatever its version."""
    path = folder / REQUIREMENTS
    absent = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
        if name is not None:
            try:
                importlib.metadata.distribution(name[0])
            except importlib.metadata.PackageNotFoundError:
                absent.append(line.strip())
    return absent
