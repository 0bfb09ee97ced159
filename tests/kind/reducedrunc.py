"""runc for a machine without CAP_SYS_RESOURCE: that is taken out of what a container, or a process in one, asks for."""

import json
import os
import sys
from pathlib import Path


def reduce(path: Path, *, container: bool) -> None:
    """Take the capability, and a score that only it lets lower, out of a bundle's configuration or a process's."""
    document = json.loads(path.read_text())
    process = document["process"] if container else document
    for names in process.get("capabilities", {}).values():
        names[:] = [name for name in names if name != "CAP_SYS_RESOURCE"]
    process.pop("oomScoreAdj", None)
    path.write_text(json.dumps(document))


arguments = sys.argv[1:]
if "create" in arguments:
    reduce(Path(arguments[arguments.index("--bundle") + 1]) / "config.json", container=True)
elif "exec" in arguments:
    reduce(Path(arguments[arguments.index("--process") + 1]), container=False)
os.execv("/usr/sbin/runc", ["runc", *arguments])
