"""The one way to run kubectl; the program is played by a script that prints its arguments."""

import sys
from pathlib import Path

import pytest

from gravswell.errors import GravswellError, UnavailableError
from gravswell_operator.devcluster.kubectl import Kubectl


def test_kubectl_is_told_what_it_is_for(tmp_path):
    script = tmp_path / "kubectl"
    script.write_text(
        f"#!{sys.executable}\nimport sys, time\nprint(sys.argv[1:])\ntime.sleep('sleep' in sys.argv)\n"
        "sys.exit(sys.argv[-1] == 'bad' and 'error: no such thing')\n"
    )
    script.chmod(0o755)
    kubectl = Kubectl(script, Path("/a/config"), "there", Path("/a/cache"))
    said = "['--kubeconfig=/a/config', '--context=there', '--cache-dir=/a/cache', 'get', 'pods']\n"
    assert kubectl("get", "pods") == said
    with pytest.raises(GravswellError, match="kubectl get bad: error: no such thing"):
        kubectl("get", "bad")
    assert "bad" in kubectl("get", "bad", check=False)
    with pytest.raises(UnavailableError, match="kubectl sleep did not end in 0 s"):
        kubectl("sleep", timeout=0.1)
