"""What the operator's process holds before it has seen any object."""

import subprocess
import sys

HEAVY = ("grpc", "numpy", "onnx", "tritonclient", "google.protobuf", "google.cloud.container")


def test_the_operator_loads_nothing_that_only_exporters_clients_and_clouds_need():
    """They would be a third of what it takes with a thousand servers."""
    code = f"import sys, gravswell_operator.runtime; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
