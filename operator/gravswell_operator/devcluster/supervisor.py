"""``python -m gravswell_operator.devcluster.supervisor``: one process that owns a cluster's servers, from start to end.

It ends on SIGTERM, on the end of its standard input where ``--attached`` says that somebody holds the other end, and
with a message when one of its servers ends. Its servers end with it, also after SIGKILL.
"""

import argparse
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from gravswell.errors import GravswellError
from gravswell_operator.devcluster.binaries import ensure_binaries
from gravswell_operator.devcluster.controlplane import ControlPlane
from gravswell_operator.devcluster.kwok import KwokNodes
from gravswell_operator.devcluster.localnode import LocalNode
from gravswell_operator.devcluster.processes import Servers
from gravswell_operator.devcluster.state import NODE_FOLDER, ClusterState, Phase, Shape, supervising

_CHECK_SECONDS = 0.5


class _StopRequestedError(Exception):
    """SIGTERM came, or whoever started us is gone."""


def main() -> int:
    """Parse the arguments, run the cluster, report in the state file."""
    parser = argparse.ArgumentParser(prog="gravswell-cluster-supervisor", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--shape", type=Shape.model_validate_json, required=True)
    parser.add_argument("--attached", action="store_true")
    parser.add_argument("--definitions", type=Path)
    given = parser.parse_args()
    with supervising(given.directory) as free:
        if not free:
            print(f"{given.directory} is supervised already", file=sys.stderr)
            return 4
        signal.signal(signal.SIGTERM, _request_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has the terminal decides
        if given.attached:
            threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
        return _supervise(given.directory, given.shape, given.definitions)


def _supervise(directory: Path, shape: Shape, definitions: Path | None) -> int:
    state = ClusterState(phase=Phase.STARTING, pid=os.getpid(), shape=shape)
    state.write(directory)
    try:
        with ExitStack() as stack:
            _run(directory, shape, definitions, state, stack)
    except _StopRequestedError:
        state.model_copy(update={"phase": Phase.STOPPED}).write(directory)
        return 0
    except GravswellError as error:
        failed = {"phase": Phase.FAILED, "message": str(error), "exit_code": error.exit_code}
        state.model_copy(update=failed).write(directory)
        return error.exit_code
    return 0


def _run(directory: Path, shape: Shape, definitions: Path | None, state: ClusterState, stack: ExitStack) -> None:
    binaries = ensure_binaries()
    plane = stack.enter_context(ControlPlane(directory / "control-plane", binaries=binaries, definitions=definitions))
    parts: list[Servers] = [plane]
    if shape.local_node:
        parts.append(stack.enter_context(LocalNode(plane, directory / NODE_FOLDER, gpus=shape.gpus)))
    if shape.kwok_nodes:
        parts.append(stack.enter_context(KwokNodes(plane, count=shape.kwok_nodes, gpus=shape.gpus)))
    state.model_copy(
        update={
            "phase": Phase.READY,
            "server": plane.server_url,
            "kubeconfig": str(plane.kubeconfig),
            "kubectl": str(binaries["kubectl"]),
            "logs": str(plane.logs),
            "pods": str(directory / NODE_FOLDER / "pods"),
        }
    ).write(directory)
    while True:
        time.sleep(_CHECK_SECONDS)
        for part in parts:
            part.require_running()


def _request_stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: the clean-up must not be interrupted
    raise _StopRequestedError


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
