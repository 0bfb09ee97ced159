"""kube-router's source with what holds pods to NetworkPolicies alone: their routes and Services are others' here.

It is k3s's edition, which leaves what it does not refuse to the node's other rules.
"""

import re
from pathlib import Path

PATH = "github.com/k3s-io/kube-router/v2"
"""Where k3s publishes it."""
_ORIGINAL = "github.com/cloudnativelabs/kube-router/v2"
_PARTS = re.compile(r"(?ms)^\tif kr\.Config\.Run(?:Router|ServiceProxy|LoadBalancer) \{\n.*?^\t\}\n")
_LINES = re.compile(
    r'(?m)^\t(?:"\S+/controllers/(?:lballoc|proxy|routing)"|(?:svc|node)Informer := .*|n[rs]c(?: := |\.Cleanup).*)\n'
)
"""Of what starts the parts: what names those that go, and what only they ask for."""


def trim(source: Path) -> None:
    """Take the other parts out of a copy of the module, and give it the name by which it was had."""
    for file in (source / "go.mod", *source.rglob("*.go")):
        file.write_text(file.read_text().replace(_ORIGINAL, PATH))
    runner = source / "pkg/cmd/kube-router.go"
    runner.write_text(_LINES.sub("", _PARTS.sub("", runner.read_text())))
