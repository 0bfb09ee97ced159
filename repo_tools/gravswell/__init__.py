"""gravswell: from a trained model to a scaled, verified Triton Inference Server.

This package is the library, the command line and the agent. Its law: it knows nothing of the operator
(``gravswell_operator``) nor of kopf, and imports a machine-learning framework only inside that framework's exporter.
"""

from importlib.metadata import version

__version__ = version("gravswell")
