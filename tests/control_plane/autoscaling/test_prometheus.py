"""What finds the pods for Prometheus; the API server is simulated, which does not answer for once."""

import json
from types import SimpleNamespace

from gravswell.errors import GravswellError

from ..operating import wait_until
from . import prometheus


def test_pods_are_looked_for_again_after_a_look_that_failed(tmp_path, monkeypatch, caplog):
    port = {"name": "http", "containerPort": 8000}
    pod = {
        "metadata": {"name": "server", "namespace": "test"},
        "spec": {"containers": [{"name": "triton", "ports": [port]}]},
        "status": {"podIP": "127.0.0.2"},
    }
    answers = [GravswellError("list pods: the server is starting"), ConnectionRefusedError("no API server"), [pod]]

    def answer(*_):
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(prometheus, "api_of", lambda _: SimpleNamespace(list=answer))
    looking = prometheus.Prometheus(SimpleNamespace(logs=tmp_path), tmp_path, {})
    looking._discovery.start()
    try:
        wait_until((tmp_path / "pods.json").exists)
    finally:
        looking.stop()
    (target,) = json.loads((tmp_path / "pods.json").read_text())
    assert target["targets"] == ["127.0.0.2:8000"]
    for failure in ("the server is starting", "no API server"):
        assert failure in caplog.text
