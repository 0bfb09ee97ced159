"""The notebook's ``utils``."""

import http.server
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gravswell import utils
from gravswell.errors import NotFoundError

METRICS = """\
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-b"} 0.250000
nv_gpu_utilization{gpu_uuid="GPU-a"} 0.750000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 1
"""


def test_tree_in_numerical_order_without_hidden_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "my-repo"
    for name in ("m/10/model.onnx", "m/2/model.onnx", "m/2/.manifest.json", "m/config.pbtxt", ".state/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    utils.print_tree(root)
    assert capsys.readouterr().out.splitlines() == [
        "my-repo/",
        "    m/",
        "        2/",
        "            model.onnx",
        "        10/",
        "            model.onnx",
        "        config.pbtxt",
    ]
    with pytest.raises(NotFoundError, match="nothing"):
        utils.print_tree(tmp_path / "nothing")


@pytest.mark.parametrize("arguments", [(), (0,), ([0, 1],)])
def test_progress_without_a_gpu_is_just_progress(
    arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with utils.GpuUtilProgress(*arguments) as progress:  # type: ignore[arg-type]
        task = progress.add_task("[cyan]Inference", total=10, start=False)
        progress.start_task(task)
        progress.update(task, advance=10)
        assert progress._tasks[task].finished
        assert len(progress.tasks) == 1


def test_gpus_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, 37'\necho '1, 100'\necho '2, [N/A]'\n")
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert utils.read_gpu_use() == {0: 37.0, 1: 100.0}
    with utils.GpuUtilProgress([1], interval=0.01) as progress:
        _wait_for_tasks(progress, 1)
    (bar,) = progress.tasks
    assert "GPU 1" in bar.description
    assert not bar.finished


@pytest.fixture
def metrics_url() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


def test_gpus_of_a_server(metrics_url: str) -> None:
    """A server that plays Triton's metrics, because no machine of ours has a GPU; the names are Triton's."""
    assert utils.read_gpu_use(metrics_url) == {0: 75.0, 1: 25.0}
    with utils.GpuUtilProgress(metrics_url=metrics_url, interval=0.01) as progress:
        _wait_for_tasks(progress, 2)
    assert [task.completed for task in progress.tasks] == [75.0, 25.0]


def test_the_notebook_s_own_words_show_remote_gpus(metrics_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several servers, one of which is away; its cells name no server, so the environment does."""
    monkeypatch.setenv("GRAVSWELL_METRICS_URL", f"http://127.0.0.1:9/metrics,{metrics_url}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with utils.GpuUtilProgress([1, 7], interval=0.01) as progress:
        task_id = progress.add_task("Inference", total=16)
        progress.update(task_id, advance=8)
        progress.update(task_id, advance=8)
        while not progress._tasks[task_id].finished:
            time.sleep(0.1)
        _wait_for_tasks(progress, 2)
        assert [task.description for task in progress.tasks] == ["Inference", "[green]GPU 1 utilization"]
        assert "/s" in str(progress.make_tasks_table(progress.tasks[:1]).columns[3]._cells[0])


def test_where_servers_tell_their_metrics() -> None:
    urls = utils.metrics_urls(["10.0.0.1:8000", "[fd00::1]:8001"], 9002)
    assert urls == ["http://10.0.0.1:9002/metrics", "http://[fd00::1]:9002/metrics"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/metrics", "ftp://x/metrics"])
def test_a_server_that_does_not_answer_shows_nothing(url: str) -> None:
    assert utils.read_gpu_use(url) == {}


def _wait_for_tasks(progress: utils.GpuUtilProgress, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(progress.tasks) < count:
        assert time.monotonic() < deadline, "no bar for the GPU appeared"
        time.sleep(0.01)
