"""The embedded Triton: NVIDIA's own server, on the CPU, as a child of this process.

Its law: nothing here knows of repositories' formats beyond what Triton itself reads, and nothing is ever written into a
repository: what must differ on a CPU differs in an overlay that belongs to one server.
"""

from gravswell.serving.triton.install import TritonInstallation, ensure_triton

__all__ = ["TritonInstallation", "ensure_triton"]
