"""``gravswell import``, as a user runs it."""

from pathlib import Path

import numpy as np

from .conftest import Run


def test_import(run: Run, model: Path) -> None:
    for name in ("m", "p"):
        folder = Path("theirs", name, "3")
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(model.read_bytes())
    np.savez("batch.npz", x=np.ones((2, 4), np.float32))
    done = run("import", "theirs", "ours", "--entry", "m", "--sample-inputs", "m=batch.npz", "-o", "json")
    assert done.code == 0
    assert [(row["entry"], row["version"], row["result"]) for row in done.data] == [("m", 3, "imported")]
    assert run("show", "ours", "m/3", "-o", "json").data["manifest"]["verification"]["inputs"] == "given"
    Path("theirs/p/config.pbtxt").write_text('backend: "python"')
    told = run("import", "theirs", "ours")
    assert told.code == 9
    assert "same" in told.out
    assert "1 of 2 could not be imported: p: p is a model of the python backend" in told.err
    assert run("import", "theirs", "ours", "--entry", "none").code == 3
    Path("away").mkdir()
    assert "away has no version of a model" in run("import", "away", "ours").out
    Path("away/notes.txt").write_text("")
    wrong = run("import", "away", "ours")
    assert (wrong.code, "away is no model repository: it holds notes.txt" in wrong.err) == (2, True)
    assert run("import", "theirs", "ours", "--sample-inputs", "batch.npz").code == 2
    assert run("import", "theirs", "ours", "--input-shape", "x=1,4").code == 2
    assert run("import", "theirs", "again", "--entry", "m", "--input-shape", "m/x=7,4").code == 0
    proof = run("show", "again", "m/3", "-o", "json").data["manifest"]["verification"]
    assert proof["shapes"][0] == {"x": [7, 4]}
