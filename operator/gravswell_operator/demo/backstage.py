"""The demo's own cluster, made ready for the last chapter while the first ones are shown: they leave a core idle."""

import threading
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import yaml

from gravswell_operator.api import crd
from gravswell_operator.demo.installing import OPERATOR_STOP_TIMEOUT, start_operator
from gravswell_operator.devcluster import Binaries, DevCluster
from gravswell_operator.devcluster.processes import Child


class Backstage:
    """Starts a development cluster that has the custom resources, and the operator on it.

    The futures say how far that is; where one fails, it raises why, and so do those after it. Whatever was started goes
    with :meth:`end`.

    Args:
        binaries: what the cluster runs.
        folder: an empty one for the definitions and the operator's log.
    """

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        self.cluster: Future[DevCluster] = Future()
        self.operator: Future[Child] = Future()
        self.log = folder / "operator.log"
        self._definitions = folder / "crds.yaml"
        # Not as a user would, once all runs: what belongs to the demo's objects would outlive them by half a minute.
        self._cluster = DevCluster(binaries=binaries, definitions=self._definitions)
        self._over = threading.Event()
        self._ended = threading.Event()  # for who is interrupted in its join, a thread counts as ended (CPython 3.11)
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None  # it lives as long as the operator, which ends with it

    def begin(self) -> None:
        """Let it start.

        Raises:
            UnavailableError: the disk is full.
        """
        self._definitions.write_text(yaml.safe_dump_all(crd.crds(), sort_keys=False))
        self._cluster.begin()
        self._thread = threading.Thread(target=self._run, name="backstage", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop all of it, wherever it is, also where that is interrupted; bounded and idempotent.

        Raises, once, what kept it from ending well.
        """
        try:
            self._end()
        except KeyboardInterrupt:
            self._end()
            raise
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _end(self) -> None:
        self._over.set()
        if not self.cluster.done():
            self._cluster.stop()  # which ends the wait for its start
        if self._thread is not None and self._thread.is_alive():
            self._ended.wait()

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                stack.callback(self._cluster.stop)
                self._cluster.wait()
                self.cluster.set_result(self._cluster)
                operator = start_operator(self._cluster.kubectl, self.log)
                stack.callback(operator.stop, OPERATOR_STOP_TIMEOUT)
                self.operator.set_result(operator)
                self._over.wait()
        except Exception as error:  # noqa: BLE001  raised where it is waited for
            ahead = [part for part in (self.cluster, self.operator) if not part.done()]
            for part in ahead:
                part.set_exception(error)
            if not ahead:
                self._failure = error
        finally:
            self._ended.set()
