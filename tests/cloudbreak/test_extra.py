"""What is said where the extra is not installed."""

import subprocess
import sys

CODE = """
import sys
sys.modules["google.cloud.container_v1"] = None
try:
    from gravswell.cloudbreak import google
except Exception as error:
    print(type(error).__name__, error)
"""


def test_the_extra_is_named() -> None:
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=True).stdout
    assert said.startswith("UnsupportedError gravswell.cloudbreak.google needs google-cloud-container")
    assert "gke" in said
