"""``run``: the command line in this process."""

from ..commands import run

__all__ = ["run"]
