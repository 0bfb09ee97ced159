"""The operator's part of the command line, joined through the entry-point group ``gravswell.commands``.

Its law: a module here parses and renders; what it needs beyond typer is imported inside the command, so that
``gravswell ls`` starts without kopf, and works where the ``operator`` extra is not installed.
"""

from importlib import import_module

import typer

TOPICS: tuple[str, ...] = ("plan", "rollout", "top", "operator", "cluster", "demo")
"""Modules of this package, each with ``register(app)``, in the order of ``gravswell --help``."""


def register(app: typer.Typer) -> None:
    """Add the operator's commands to ``app``."""
    for topic in TOPICS:
        import_module(f"{__name__}.{topic}").register(app)
