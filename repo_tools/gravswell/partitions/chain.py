"""The parts of a partition in this process, one after the other: what is proved, and what their cost is told from."""

from pathlib import Path

from gravswell.partitions.records import PartRecord, Plan
from gravswell.quiver.exporters.base import Inputs, Outputs
from gravswell.quiver.exporters.proof import open_session, run


class Chain:
    """All parts in ``folder``, each in a session of ONNX Runtime on the CPU. A function from inputs to outputs."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._sessions = [open_session(folder / part.file) for part in plan.parts]

    def __call__(self, inputs: Inputs) -> Outputs:
        """The whole model's outputs, by name."""
        tensors = self.tensors(inputs)
        return {output.name: tensors[output.name] for output in self._plan.outputs}

    def tensors(self, inputs: Inputs) -> Outputs:
        """All tensors between the parts, and the model's own, by name."""
        known = dict(inputs)
        for session in self._sessions:
            known |= run(session, known)
        return known

    def fed(self, inputs: Inputs) -> list[tuple[PartRecord, Inputs]]:
        """What each part is given, for a batch of the whole model's inputs."""
        known = self.tensors(inputs)
        return [(part, {taken.name: known[taken.name] for taken in part.inputs}) for part in self._plan.parts]
