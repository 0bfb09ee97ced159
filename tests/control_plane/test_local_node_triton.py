"""The real Triton as a container of the local node, with the arguments that it gets on any other node."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

OURS = "ghcr.io/gravswell/gravswell:test"

SERVE = (
    "exec tritonserver --model-repository=/models --model-control-mode=explicit --load-model=double "
    "--exit-on-error=false --http-address=$(POD_IP) --grpc-address=$(POD_IP) --metrics-address=$(POD_IP) "
    '"--http-restricted-api=model-repository,logging:X-Gravswell-Key=$(cat /run/gravswell/key)" --exit-timeout-secs=5'
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2])  # noqa: E731
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [value("x")], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "double/1").mkdir(parents=True)
    onnx.save(model, tmp_path / "double/1/model.onnx")
    (tmp_path / "double/config.pbtxt").write_text(
        'name: "double"\nplatform: "onnxruntime_onnx"\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [-1, 2] }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [-1, 2] }\n'
        "instance_group { kind: KIND_CPU count: 1 }\n"
    )
    return tmp_path


def call(url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers, method="GET" if body is None else "POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_triton_serves_on_the_pods_address_and_ends_gracefully(pods, kubectl, repository):
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    run = {"name": "run", "mountPath": "/run/gravswell"}
    key = {"name": "key", "image": OURS, "command": ["sh", "-c", "printf s3cret > /run/gravswell/key"]}
    triton = {
        "name": "triton",
        "image": "nvcr.io/nvidia/tritonserver:24.08-py3",
        "command": ["/bin/sh", "-c"],
        "args": [SERVE],
        "env": [address],
        "ports": [{"name": "http", "containerPort": 8000}],
        "volumeMounts": [{**run, "readOnly": True}, {"name": "models", "mountPath": "/models", "readOnly": True}],
        "startupProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "failureThreshold": 60,
            "periodSeconds": 1,
        },
        "readinessProbe": {"httpGet": {"path": "/v2/models/double/ready", "port": "http"}, "periodSeconds": 1},
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    }
    pods.create(
        "server",
        triton,
        initContainers=[{**key, "volumeMounts": [run]}],
        volumes=[
            {"name": "run", "emptyDir": {"medium": "Memory"}},
            {"name": "models", "hostPath": {"path": str(repository)}},
        ],
        terminationGracePeriodSeconds=60,
    )
    pod = pods.until("server", _ready, seconds=300)  # the first pod may have to install Triton
    base = f"http://{pod['status']['podIP']}:8000/v2"

    sent = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, -2.0]}]}
    status, answer = call(f"{base}/models/double/infer", sent)
    assert status == 200
    assert answer["outputs"][0]["data"] == [3.0, -4.0]

    assert call(f"{base}/repository/index", {})[0] == 403
    assert call(f"{base}/repository/index", {}, **{"X-Gravswell-Key": "s3cret"})[0] == 200

    kubectl("delete", "pod", "server", "-n", pods.namespace, "--timeout=90s")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{base}/health/live", timeout=5)


def _ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
