"""gravswell: from a trained model to a scaled, verified Triton Inference Server.

This package is the library, the command line and the agent. Its law: it knows nothing of the operator
(``gravswell_operator``) nor of kopf, and imports a machine-learning framework only inside that framework's exporter.
"""

import os
from importlib.metadata import version

# ONNX Runtime's builds for Linux report sessions and models to their maker, unless this is set before the first import.
# Models are their owners' business; whoever wants the reports sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = version("gravswell")
