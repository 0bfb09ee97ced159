"""A Model on one replica: its pod, and what the agent there says of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gravswell.serving.contracts import Canary, DesiredModel, ModelReport, ModelState, Report
from gravswell_operator.state import PodState


@dataclass(frozen=True)
class Replica:
    """One pod of the server, and what its agent says of the model; None where it has not said anything yet."""

    pod: PodState
    report: ModelReport | None

    def serves(self, desired: DesiredModel | Canary) -> bool:
        """Whether exactly this version takes traffic there."""
        return self.report is not None and self.report.has_loaded(desired)

    def serves_any(self, desired: DesiredModel) -> bool:
        """Whether a version that may take traffic now does: the desired one, or the one of its canary."""
        return self.serves(desired) or (desired.canary is not None and self.serves(desired.canary))

    def own(self, desired: DesiredModel) -> DesiredModel:
        """What this replica shall serve."""
        return desired.on(self.pod.name)

    def failed(self, desired: DesiredModel) -> bool:
        """Whether the agent tried this version and could not serve it."""
        report = self.report
        return report is not None and report.state is ModelState.FAILED and report.is_about(desired)


def replicas_of(entry: str, pods: Iterable[PodState], reports: Mapping[str, Report]) -> list[Replica]:
    """A server's active pods, by name, with what their agents say of one of its entries."""
    found = []
    for pod in sorted((p for p in pods if p.active), key=lambda p: p.name):
        report = reports.get(pod.name)
        found.append(Replica(pod, report.of(entry) if report is not None else None))
    return found
