"""The real kubectl on one cluster: of the development cluster as its administrator, and of a user's own."""

import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gravswell.errors import GravswellError, UnavailableError
from gravswell_operator.devcluster.processes import wait_until

DEFINITIONS_TIMEOUT = 90.0
"""Seconds for an API server to list kinds that it has taken; less than one is usual."""


@dataclass(frozen=True)
class Kubectl:
    """The kubectl at ``path``, on one context of one kubeconfig (None: the user's own). Call it with its arguments.

    ::

        cluster.kubectl("get", "nodes")
    """

    path: Path
    kubeconfig: Path | None = None
    context: str | None = None
    cache: Path | None = None
    """Where it caches what the API server offers (None: below the user's home)."""

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120.0) -> str:
        """Run it and return what it printed.

        Raises:
            GravswellError: with kubectl's own words, if it failed and ``check`` is set.
            UnavailableError: it did not end in ``timeout`` seconds.
        """
        try:
            done = subprocess.run(
                self.command(*arguments),
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
                start_new_session=True,  # Ctrl-C on the terminal is ours to handle
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"kubectl {shlex.join(arguments)} did not end in {timeout:.0f} s") from None
        if check and done.returncode != 0:
            raise GravswellError(f"kubectl {shlex.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that ``kubectl get ARGUMENTS`` finds."""
        found: dict[str, Any] = json.loads(self("get", *arguments, "--output=json"))
        items: list[dict[str, Any]] = found.get("items", [found])
        return items

    @classmethod
    def administrator(cls, path: Path, kubeconfig: Path) -> Self:
        """The administrator's of a development cluster, which goes with everything that kubectl caches about it."""
        return cls(path, kubeconfig, cache=kubeconfig.with_name("kubectl-cache"))

    def command(self, *arguments: str) -> list[str]:
        """The whole command line, for those who run it in a way of their own."""
        target = [f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []
        target += [f"--context={self.context}"] if self.context else []
        target += [f"--cache-dir={self.cache}"] if self.cache else []
        return [str(self.path), *target, *arguments]


def install_definitions(
    kubectl: Kubectl, manifests: str, names: Sequence[str], *, still_well: Callable[[], None] = lambda: None
) -> None:
    """Install custom resource definitions, and return when objects of their kinds can be made.

    That is when the API server lists them, a moment after it has taken them.

    Args:
        kubectl: of a cluster and a user who may install them.
        manifests: the definitions, as YAML.
        names: theirs, such as ``models.gravswell.dev``.
        still_well: called between looks; raises if what is waited for has died.

    Raises:
        GravswellError: they are refused; with kubectl's own words.
        UnavailableError: they are not listed in time.
    """
    kubectl("apply", "--server-side", "--filename=-", stdin=manifests)

    def listed() -> bool:
        still_well()
        try:
            kubectl("get", ",".join(names), "--all-namespaces", "--output=name")
        except GravswellError:
            return False
        return True

    wait_until(listed, what=f"the API server's list of {', '.join(names)}", timeout=DEFINITIONS_TIMEOUT)
