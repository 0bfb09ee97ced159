"""The embedded Triton: NVIDIA's own server, on the CPU, as a child of this process.

Its law: nothing is ever written into a repository. What must differ on a CPU differs in an overlay that belongs to one
server. Others than users of the server import :mod:`~gravswell.serving.triton.flags` and
:mod:`~gravswell.serving.triton.modelnames` only, which are light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravswell.serving.triton.install import TritonInstallation, ensure_triton
    from gravswell.serving.triton.ports import Ports
    from gravswell.serving.triton.server import EmbeddedTriton, ServedModel

__all__ = ["EmbeddedTriton", "Ports", "ServedModel", "TritonInstallation", "ensure_triton"]

_HOMES = {
    "EmbeddedTriton": "server",
    "Ports": "ports",
    "ServedModel": "server",
    "TritonInstallation": "install",
    "ensure_triton": "install",
}


def __getattr__(name: str) -> Any:
    # Late, so that the operator and the agent can have the flags without the client library and protobuf.
    if name in _HOMES:
        from importlib import import_module  # noqa: PLC0415  part of the lateness

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
