"""The README's first command, as a user runs it, with the real parts. Its set-up is the test environment's own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gravswell_operator.devcluster import ensure_binaries

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "gravswell", "demo"]
BOUND = 400
"""Seconds: the demo takes about one minute on an idle machine."""


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """The programs are built before a demo's time is bounded: on a new machine that takes minutes."""
    ensure_binaries()


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment by which every process that a demo leaves behind can be found."""
    mark = f"GRAVSWELL_TEST_MARK={tmp_path}"
    yield os.environ | {"GRAVSWELL_TEST_MARK": str(tmp_path), "COLUMNS": "200", "TMPDIR": str(tmp_path)}
    left = marked(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "processes outlived the demo"


def marked(mark: str) -> list[int]:
    """Processes that carry ``mark`` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"\0{mark}\0" in "\0" + (process / "environ").read_text(errors="replace"):
                found.append(int(process.name))
        except OSError:
            continue  # it ended, or is not ours
    return found


def test_the_readme_shows_the_demo_that_is_tested() -> None:
    assert re.search(r"^python3 .*\.venv/bin/gravswell demo$", (ROOT / "README.md").read_text(), re.M)


def test_the_whole_way(mark: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO, env=mark, capture_output=True, text=True, check=False, timeout=BOUND, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in (
        "version 1, verified in ONNX Runtime against scikit-learn",
        "export the next version, no shapes given",
        "digits/config.pbtxt",
        "equal to the framework's",
        "Simulated here:",
        "kubectl apply -f examples/",
        "no request failed",
        "the test set through both replicas",
        "nothing is left: no object, no pod, no process",
        "Where ",
    ):
        assert words in done.stdout
    for kind in ("GPUNodePool", "ModelRepository", "InferenceServer", "Model"):
        assert re.search(rf"^{kind} .*True", done.stdout, re.M), f"{kind} is not shown Ready"
    assert not list(tmp_path.iterdir()), "the demo left files behind"


def test_without_a_cluster_pytorch_does_the_same(mark: dict[str, str], tmp_path: Path) -> None:
    repository = tmp_path / "kept"
    done = subprocess.run(
        [*DEMO, "--no-cluster", "--framework", "torch", "--directory", str(repository)],
        env=mark,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "verified in ONNX Runtime against torch" in done.stdout
    assert "equal to the framework's" in done.stdout
    assert (repository / "digits" / "2" / "model.onnx").is_file()


def test_interrupted_it_cleans_up(mark: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        demo = subprocess.Popen(DEMO, env=mark, stdout=output, stderr=output, start_new_session=True)
    deadline = time.monotonic() + BOUND
    while "kubectl apply -f examples/" not in log.read_text():
        assert demo.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=120) != 0
    assert "Traceback" not in log.read_text()
    log.unlink()
    assert not list(tmp_path.iterdir()), "the demo left files behind"


def test_a_folder_with_something_in_it_is_left_alone(mark: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    done = subprocess.run(
        [*DEMO, "--no-cluster", "--directory", str(tmp_path)],
        env=mark,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    assert done.returncode == 4
    assert "no empty folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
