"""KEDA's source without the scalers that need nobody's cloud, queue or database here: a fifth of what it compiles.

Everything else is KEDA's own, as published: its controllers, how it scales to none and back, its metrics API.
"""

import re
from pathlib import Path

KEPT = frozenset({"cpu", "memory", "cron", "metrics-api", "prometheus", "kubernetes-workload"})
"""The types of triggers that are left."""
_FILES = {
    "scaler.go",
    "cpu_memory_scaler.go",
    "cron_scaler.go",
    "metrics_api_scaler.go",
    "prometheus_scaler.go",
    "kubernetes_workload_scaler.go",
    "external_scaler.go",  # its connections are closed by what builds scalers
}
_SHARED = 'package scalers\n\nconst externalMetricType = "External"\n'
"""What those that stay share, and one that goes defines."""


def trim(source: Path) -> None:
    """Take the other scalers out of a copy of the module, and their lines out of what builds scalers."""
    scalers = source / "pkg/scalers"
    for file in scalers.glob("*.go"):
        if file.name not in _FILES:
            file.unlink()
    (scalers / "shared.go").write_text(_SHARED)
    builder = source / "pkg/scaling/scalers_builder.go"
    parts = re.split(r'(?m)^(?=\tcase "|\tdefault:)', builder.read_text())
    builder.write_text("".join(part for part in parts if _stays(part)))


def _stays(part: str) -> bool:
    case = re.match(r'\tcase "([^"]+)"', part)
    return case is None or case[1] in KEPT
