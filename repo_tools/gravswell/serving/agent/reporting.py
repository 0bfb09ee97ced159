"""What one replica says of itself, and its way into ``<server>-report``, or into one of its further parts."""

import asyncio
import logging
from collections.abc import Callable

from gravswell.errors import AccessDeniedError, GravswellError, NotFoundError
from gravswell.kube.backoff import Backoff
from gravswell.kube.errors import ApiRejectedError
from gravswell.serving.agent.configmaps import ConfigMap
from gravswell.serving.agent.ledger import Ledger
from gravswell.serving.agent.work import Work
from gravswell.serving.contracts import ModelReport, Report, report_part

log = logging.getLogger(__name__)

DEBOUNCE_SECONDS = 0.3
"""A load passes several stages at once; one write tells them all."""

CHECK_SECONDS = 60.0
"""How often the ConfigMap is looked at, in case somebody removed what was written."""

LONGEST_MESSAGE = 500
"""Characters of a message: a ConfigMap has 1 MiB for all replicas that share it."""


def build_report(ledger: Ledger, *, pod: str, simulated_gpus: bool, uid: str = "") -> Report:
    """The report of this moment."""
    return Report(
        pod=pod,
        uid=uid,
        revision=ledger.desired.revision if ledger.desired is not None else "",
        ready=ledger.ready,
        triton=ledger.triton_version,
        simulated_gpus=simulated_gpus,
        start=ledger.start,
        models=tuple(_model_report(ledger, work) for work in ledger.works.values()),
    )


def _model_report(ledger: Ledger, work: Work) -> ModelReport:
    serving = ledger.serving.get(work.model.name)
    message = work.message if len(work.message) <= LONGEST_MESSAGE else work.message[: LONGEST_MESSAGE - 1] + "…"
    return ModelReport(
        name=work.model.name,
        state=work.state,
        desired_version=work.model.version,
        desired_digest=work.model.digest,
        loaded_version=serving.loaded.version if serving else None,
        loaded_digest=serving.loaded.digest if serving else None,
        loaded_at=serving.since if serving else None,
        verified=(
            serving is not None
            and serving.proven
            and serving.golden is not None
            and not ledger.is_giving_way(work.model)
        ),
        reason=work.reason or "",
        message=message,
        seconds=dict(work.seconds),
        downloaded=work.downloaded,
        traffic=ledger.traffic_of(work.model.name),
    )


class ReportWriter:
    """Keeps this pod's key in its report ConfigMap equal to what is true, as soon as it can.

    ``configmap`` gives each of the ConfigMaps that the server's reports are divided among, by its number.
    """

    def __init__(
        self,
        configmap: Callable[[int], ConfigMap],
        ledger: Ledger,
        *,
        pod: str,
        simulated_gpus: bool,
        uid: str = "",
    ) -> None:
        self._configmap = configmap
        self._passed_over = 0
        """How many had no room for it."""
        self._ledger = ledger
        self._pod, self._uid = pod, uid
        self._simulated_gpus = simulated_gpus
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """The report may differ from what was written."""
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled. An API server that does not answer is asked again, less and less often."""
        written: tuple[int, str] | None = None
        backoff = Backoff()
        while True:
            self._changed.clear()  # before reading the state: a change from here on makes another round
            report = build_report(self._ledger, pod=self._pod, simulated_gpus=self._simulated_gpus, uid=self._uid)
            part, text = self._part(), report.to_json()
            configmap = self._configmap(part)
            try:
                if (part, text) != written:
                    await configmap.merge({self._pod: text})
                    await self._move(part)
                    written = part, text
                    backoff.succeeded()
                elif (await configmap.read()).data.get(self._pod) != text:
                    written = None
                    continue
            except GravswellError as error:
                if backoff.failures in (0, 5):
                    log.warning("the report waits: %s", error)
                await asyncio.sleep(backoff.failed(error))
                self._passed_over += isinstance(error, ApiRejectedError)
                written = None
                continue
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(DEBOUNCE_SECONDS)

    def _part(self) -> int:
        desired = self._ledger.desired
        parts = desired.reports if desired is not None else 1
        return (report_part(self._pod, parts) + self._passed_over) % parts

    async def _move(self, part: int) -> None:
        """Remove what was written elsewhere, now that it is in ``part``: read without a gap, for it was there twice."""
        held = self._ledger.reported_in
        if part == held:
            return
        try:
            await self._configmap(held).merge({self._pod: None})
        except (NotFoundError, AccessDeniedError) as error:
            log.debug("the report is no longer where it was: %s", error)
        self._ledger.reported(part)
