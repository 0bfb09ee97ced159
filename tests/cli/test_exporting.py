"""``gravswell export`` of the files that frameworks write: those with code in them only when they are trusted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import torch
import xgboost
from sklearn.datasets import load_digits

from .conftest import Run

X, Y = load_digits(n_class=3, return_X_y=True)
SMALL = {"n_estimators": 2, "n_jobs": 1}


def _booster(path: Path) -> None:
    xgboost.XGBRegressor(**SMALL).fit(X, Y).get_booster().save_model(path)


def _lightgbm(path: Path) -> None:
    lightgbm.LGBMRegressor(**SMALL, verbose=-1).fit(X, Y).booster_.save_model(path)


@pytest.mark.parametrize(
    ("name", "save", "outputs"),
    [
        ("m.ubj", lambda path: xgboost.XGBClassifier(**SMALL).fit(X, Y).save_model(path), ["label", "probabilities"]),
        ("m.json", lambda path: xgboost.XGBRegressor(**SMALL).fit(X, Y).save_model(path), ["variable"]),
        ("b.ubj", _booster, ["variable"]),
        ("m.txt", _lightgbm, ["variable"]),
    ],
)
def test_files_of_boosted_trees(run: Run, tmp_path: Path, name: str, save: Callable[[Path], Any], outputs: Any) -> None:
    save(tmp_path / name)
    run("init", "r")
    exported = run("export", "r", "m", name, "--add", "-o", "json")
    assert exported.code == 0, exported.err
    assert [o["name"] for o in exported.data["manifest"]["signature"]["outputs"]] == outputs
    (tmp_path / name).write_text("garbage")
    refused = run("export", "r", "m", name)
    assert refused.code == 2
    assert f"does not load {name}" in refused.err
    assert "Stack trace" not in refused.err


class Net(torch.nn.Linear):
    """A class that the file names, and does not hold."""


def _program(path: Path) -> None:
    shapes = ({0: torch.export.Dim("rows")},)
    torch.export.save(torch.export.export(Net(4, 2), (torch.ones(3, 4),), dynamic_shapes=shapes), path)


@pytest.mark.parametrize(
    ("name", "save", "options"),
    [
        ("m.pt", lambda path: torch.save(Net(4, 2), path), ["--input-shape", "x=-1,4"]),
        ("m.pth", lambda path: torch.jit.trace(Net(4, 2), torch.ones(3, 4)).save(path), ["--input-shape", "x=-1,4"]),
        ("m.pt2", _program, []),
    ],
)
def test_files_of_torch_only_when_trusted(
    run: Run, tmp_path: Path, name: str, save: Callable[[Path], None], options: list[str]
) -> None:
    save(tmp_path / name)
    run("init", "r")
    refused = run("export", "r", "m", name, *options, "--add")
    assert refused.code == 2
    assert "runs whatever code is in it" in refused.err
    exported = run("export", "r", "m", name, *options, "--add", "--allow-pickle", "-o", "json")
    assert exported.code == 0, exported.err
    (tensor,) = exported.data["manifest"]["signature"]["inputs"]
    assert (tensor["data_type"], tensor["dims"]) == ("TYPE_FP32", [-1, 4])


def test_weights_alone_are_no_model(run: Run, tmp_path: Path) -> None:
    torch.save(Net(4, 2).state_dict(), tmp_path / "m.pt")
    np.savez(tmp_path / "m.ckpt", x=np.ones(1))
    run("init", "r")
    run("add", "r", "m")
    for options in (["m.pt", "--allow-pickle"], ["m.ckpt"], ["m.safetensors"]):
        refused = run("export", "r", "m", *options)
        assert refused.code == 2
        assert "a torch checkpoint" in refused.err
        assert "name a function that builds the module" in refused.err
