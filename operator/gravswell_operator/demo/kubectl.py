"""The demo's hands on the cluster are kubectl's, and it shows each command, so that a reader can repeat it."""

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from gravswell.errors import GravswellError
from gravswell_operator.demo.view import Story


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
        target = [f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []
        target += [f"--context={self.context}"] if self.context else []
        done = subprocess.run(
            [str(self.path), *target, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise GravswellError(f"kubectl {shlex.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that ``kubectl get ARGUMENTS`` finds."""
        found: dict[str, Any] = json.loads(self.run("get", *arguments, "--output=json"))
        items: list[dict[str, Any]] = found.get("items", [found])
        return items
