"""The command line. Its law: it parses, calls the library, renders, and translates errors into exit codes."""

from gravswell.cli.app import app, main

__all__ = ["app", "main"]
