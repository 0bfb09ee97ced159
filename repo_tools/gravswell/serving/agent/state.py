"""What the agent remembers across its own restarts, in the models folder. Losing it costs work, never correctness."""

import logging
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from gravswell.quiver.disk import replace_file
from gravswell.serving.agent.decide import identity
from gravswell.serving.contracts import Desired, DesiredModel, Start

log = logging.getLogger(__name__)

REMEMBERED = 4
"""How many last served versions of an entry are remembered."""


class AgentState(BaseModel):
    """The content of ``state.json``."""

    desired: Desired | None = None
    """The last desired state that was seen: what to serve while its source cannot be reached."""
    verified: dict[str, str] = Field(default_factory=dict)
    """Identity of a version → version of the Triton that reproduced its golden tensors."""
    recent: dict[str, list[DesiredModel]] = Field(default_factory=dict)
    """Entry → what was served under its name with success, newest first."""
    doubted: set[str] = Field(default_factory=set)
    """Names of pipelines' members in Triton of which damaged files are loaded."""
    reported_in: int = 0
    """Which of the ConfigMaps that the server's reports are divided among has this pod's."""
    start: Start | None = None
    """How this replica came up."""

    def served(self, model: DesiredModel) -> None:
        """Note that ``model`` serves."""
        others = [known for known in self.recent.get(model.name, []) if known.version != model.version]
        self.recent[model.name] = [model, *others][:REMEMBERED]

    def verify(self, model: DesiredModel, triton: str) -> None:
        """Note that the Triton of that version reproduced the golden tensors of ``model``."""
        self.verified[identity(model)] = triton

    def verified_by(self, triton: str) -> set[str]:
        """Identities whose golden tensors the Triton of that version has reproduced."""
        return {name for name, by in self.verified.items() if by == triton}

    def forget_verified(self, *, keep: Collection[str]) -> None:
        """Forget what is no longer on this machine."""
        self.verified = {name: by for name, by in self.verified.items() if name in keep}

    @classmethod
    def read(cls, path: Path) -> "AgentState":
        """What was remembered; nothing, when there is no such file or it is damaged."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            log.warning("%s is damaged and is begun anew: %s", path, error.errors()[0]["msg"])
            return cls()

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        replace_file(path, self.model_dump_json(by_alias=True).encode())
