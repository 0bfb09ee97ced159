"""How much memory Triton's GPUs have left, by its own metrics: it is asked before a load that no GPU there can hold.

Such a load fails late, and until then it takes what the models that serve there need for their next requests.
"""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from gravswell.quiver.checks.backends import PLATFORMS
from gravswell.serving.agent.failures import ModelFailure
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.contracts import DesiredModel, Reason

WHOLE = frozenset({"onnxruntime", "tensorrt"})
"""Backends that put the whole of a version's files on each GPU, once for an instance; what others do is theirs."""

TABLES = b"ai.onnx.ml"
"""The domain of trees and encoders: ONNX Runtime has no kernels of theirs for a GPU, and their tables stay outside."""

_ENDS = 1 << 20
"""Bytes at either end of a graph's file, where it names its domains, in whichever order it was written."""

STALE_SECONDS = 3.0
"""Triton looks at its GPUs every 2 s: in its figures, what was unloaded just now is still there."""

_GAUGE = re.compile(r'^nv_gpu_memory_(used|total)_bytes\{[^}]*gpu_uuid="([^"]+)"[^}]*\}\s+([0-9.eE+-]+)$', re.MULTILINE)


async def require_gpu_memory(triton: TritonControl, model: DesiredModel, config: str, version: Path) -> None:
    """Raise :class:`ModelFailure` where none of Triton's GPUs has as much memory left as ``config`` takes of one.

    ``config`` is the JSON with which the files in the folder ``version`` are to be loaded. What is compared is the
    least that they take, their own bytes for each instance: what computing takes comes on top. Which GPU has which
    number Triton does not tell, so the emptiest one counts. Where it tells nothing of GPUs, nothing is compared.
    """
    least = await asyncio.to_thread(least_bytes, json.loads(config), version)
    if least == 0 or not await _are_short(triton, least):
        return
    await asyncio.sleep(STALE_SECONDS)
    left = await _are_short(triton, least)
    if left:
        which = "its GPU has" if len(left) == 1 else f"none of its {len(left)} GPUs has more than"
        raise ModelFailure(
            Reason.NO_MEMORY,
            f"version {model.version} of '{model.name}' takes {least / 1e6:,.0f} MB of a GPU's memory at least, and "
            f"{which} {max(left.values()) / 1e6:,.0f} MB left beside what Triton holds there; have fewer instances or "
            f"models on it, or use larger GPUs",
        )


def least_bytes(config: Any, version: Path) -> int:
    """Bytes that the files in the folder ``version`` take at least of the GPU that has most instances of ``config``, as
    Triton's JSON has it; 0 where that cannot be said, or where none is used.
    """
    if (config.get("backend") or PLATFORMS.get(config.get("platform", ""))) not in WHOLE:
        return 0
    if config.get("optimization", {}).get("execution_accelerators"):
        return 0  # an engine of another precision is made of them
    files = [path for path in version.rglob("*") if path.is_file() and not path.name.startswith(".")]
    if any(path.suffix == ".onnx" and _has_tables(path) for path in files):
        return 0
    instances: Counter[int | None] = Counter()
    groups: list[Any] = config.get("instance_group") or [{}]  # without any, Triton makes one instance on each GPU
    for group in groups:
        if group.get("kind", "KIND_AUTO") in ("KIND_AUTO", "KIND_GPU"):
            for device in group.get("gpus") or (None,):
                instances[device] += int(group.get("count", 1))
    most = max((count for device, count in instances.items() if device is not None), default=0) + instances[None]
    if config.get("parameters", {}).get("share_session_between_instances", {}).get("string_value") in ("true", "1"):
        most = min(most, 1)
    return most * sum(path.stat().st_size for path in files)


def free_bytes(metrics: str) -> dict[str, int]:
    """Bytes left on each GPU, by its UUID, from the text of Triton's metrics; empty where it tells of none."""
    told = {(gauge, uuid): float(value) for gauge, uuid, value in _GAUGE.findall(metrics)}
    return {
        uuid: int(total - told["used", uuid])
        for (gauge, uuid), total in told.items()
        if gauge == "total" and ("used", uuid) in told
    }


def _has_tables(graph: Path) -> bool:
    with graph.open("rb") as file:
        head = file.read(_ENDS)
        file.seek(max(graph.stat().st_size - _ENDS, 0))
        return TABLES in head or TABLES in file.read(_ENDS)


async def _are_short(triton: TritonControl, least: int) -> dict[str, int]:
    """What each GPU has left, where that is less than ``least`` bytes on all of them; else empty."""
    page = await triton.metrics()
    left = {} if page is None else free_bytes(page)
    return left if max(left.values(), default=least) < least else {}
