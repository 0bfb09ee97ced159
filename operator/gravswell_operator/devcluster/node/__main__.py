"""``python -m gravswell_operator.devcluster.node``: one node agent, until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import signal
import sys
from ipaddress import IPv4Network
from pathlib import Path

from gravswell.errors import GravswellError
from gravswell_operator.devcluster.node.addresses import LOOPBACK
from gravswell_operator.devcluster.node.agent import NodeAgent, Options
from gravswell_operator.devcluster.node.registration import Capacity


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="gravswell-local-node", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--pki", type=Path, required=True)
    parser.add_argument("--gpus", type=int, default=Capacity.gpus)
    parser.add_argument("--addresses", type=IPv4Network, default=LOOPBACK, help="of the pods")
    parser.add_argument("--ready-file", type=Path, required=True, help="made when the node is registered")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = Options(
        given.kubeconfig,
        given.directory,
        given.pki,
        addresses=given.addresses,
        capacity=Capacity(gpus=given.gpus),
    )
    try:
        asyncio.run(_run(options, given.ready_file))
    except GravswellError as error:
        logging.getLogger(__name__).error("%s", error)  # noqa: TRY400  a user's message, not a defect
        return error.exit_code
    return 0


async def _run(options: Options, ready: Path) -> None:
    agent = NodeAgent(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    await agent.run(ready.touch)


if __name__ == "__main__":
    sys.exit(main())
