"""Serving: the embedded Triton, clients, the agent beside a Triton, and the documents that agent and operator exchange.

``from gravswell.serving import Client, AsyncClient``: imported when asked for, because what else is here must stay
cheap to import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravswell.serving.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gravswell.serving import client  # noqa: PLC0415 - imports NumPy and tritonclient

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
