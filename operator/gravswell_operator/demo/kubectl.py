"""The demo's hands on the cluster are kubectl's, and it shows each command, so that a reader can repeat it."""

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from gravswell.errors import GravswellError, UnavailableError
from gravswell_operator.demo.view import Story

TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Kubectl:
    """The kubectl at ``path``, on one context of one kubeconfig (None: the user's own)."""

    path: Path
    story: Story
    kubeconfig: Path | None = None
    context: str | None = None

    def show(self, *arguments: str, shown: str | None = None, stdin: str | None = None) -> str:
        """Print the command (as ``shown``, where its own words would not mean much to a reader) and run it."""
        self.story.say(f"[cyan]$ kubectl {escape(shown or shlex.join(arguments))}[/]")
        return self.run(*arguments, stdin=stdin)

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run it and return what it printed. Raises :class:`GravswellError` with kubectl's own words."""
        command = [str(self.path), *self._target(), *arguments]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"kubectl {shlex.join(arguments)} did not end in {TIMEOUT_SECONDS} s") from None
        if done.returncode:
            raise GravswellError(f"kubectl {shlex.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def popen(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it, with its output in a pipe; the caller ends it."""
        return subprocess.Popen(
            [str(self.path), *self._target(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C on the terminal is ours to handle
        )

    def _target(self) -> list[str]:
        target = [f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []
        return target + ([f"--context={self.context}"] if self.context else [])

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that ``kubectl get ARGUMENTS`` finds."""
        found: dict[str, Any] = json.loads(self.run("get", *arguments, "--output=json"))
        items: list[dict[str, Any]] = found.get("items", [found])
        return items
