"""Every rule against the real Triton: what is called refused is refused there, and all else loads."""

from contextlib import suppress
from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import NotFoundError, UnavailableError
from gravswell.quiver.lint import RULES, Severity, lint, target_of
from gravswell.quiver.lint.document import markdown
from gravswell.serving.triton import EmbeddedTriton

from .cases import CASES, PLAIN, affine

ROOT = Path(__file__).parents[3]
AGE = {"opset-too-new", "ir-too-new"}  # with --target alone: this server's ONNX Runtime is newer


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lint") / "r"
    for name, case in CASES.items():
        case.write(root / name)
    return root


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What a Triton that is started on the models as they stand says of the versions of each; nothing of some."""
    root = tmp_path_factory.mktemp("asked") / "r"
    for name, case in CASES.items():
        if case.asked:
            case.write(root / name)
    found: dict[str, set[str]] = {}
    # The embedded server puts nothing in place of a config in explicit mode; the flag has it load all at once.
    with EmbeddedTriton(
        root, model_control="explicit", extra_flags=["--model-control-mode=none"], start_timeout=400
    ) as server:
        for status in server.control.index():
            found.setdefault(status.name, set()).add(status.state)
    return found


@pytest.mark.parametrize("name", CASES)
def test_findings_are_what_triton_does(name: str, repository: Path, states: dict[str, set[str]]) -> None:
    case = CASES[name]
    found = lint(repository, name)
    assert {finding.rule.id for finding in found} == set(case.rules.split()), found
    assert all(finding.place.split("/")[0] == name for finding in found)
    refused = [finding for finding in found if finding.severity is Severity.REFUSED]
    if case.asked:
        assert (states.get(name) != {"READY"}) == bool(refused)


@pytest.mark.parametrize("name", ["warm-up-batch", "warm-up-of-more"])
def test_a_warm_up_of_which_triton_may_die_is_never_served(tmp_path: Path, name: str) -> None:
    """Several requests of the sample fail at once, or one has an input that the model lacks: a server may end of it."""
    CASES[name].write(tmp_path / "r" / name)
    with (
        suppress(UnavailableError),
        EmbeddedTriton(tmp_path / "r", model_control="explicit", extra_flags=["--model-control-mode=none"]) as server,
    ):
        assert [status.state for status in server.control.index()] != ["READY"]


def test_every_rule_has_a_case(repository: Path) -> None:
    found = lint(repository)
    by_size = {"file-too-large", "config-unpublished"}  # tested below
    assert {finding.rule.id for finding in found} == set(RULES) - AGE - by_size
    severities = [list(Severity).index(finding.severity) for finding in found]
    assert severities == sorted(severities)


def test_the_age_of_a_graph_against_a_server(tmp_path: Path) -> None:
    folder = tmp_path / "r/m/1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(PLAIN)
    (folder / "model.onnx").write_bytes(affine(opset=22, ir_version=11))
    assert lint(tmp_path / "r") == []
    found = lint(tmp_path / "r", target=target_of("24.08-py3"))
    assert {finding.rule.id for finding in found} == AGE
    assert "opset 22 of ai.onnx; Triton 24.08 (ONNX Runtime 1.18.1) takes up to 21" in found[0].fact + found[1].fact


def test_a_file_that_protobuf_cannot_read(tmp_path: Path) -> None:
    folder = tmp_path / "r/m/1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(PLAIN)
    with (folder / "model.onnx").open("wb") as stream:
        stream.truncate(2**31)  # a hole: it takes no room
    (found,) = lint(tmp_path / "r")
    assert found.rule.id == "file-too-large"


def test_what_gravswell_makes_has_no_finding(entry: qv.Entry, root: Path) -> None:
    model = root.parent / "given.onnx"
    model.write_bytes(affine())
    entry.export_version(model)
    entry.export_version(model)
    assert lint(root) == []
    entry.config.add_instance_group(count=4)
    found = {finding.rule.id: finding for finding in lint(root)}
    assert set(found) == {"group-needs-gpu", "config-unpublished"}
    assert "gravswell serve" in found["group-needs-gpu"].rule.meaning


def test_a_damaged_manifest_is_for_verify_to_tell(entry: qv.Entry, root: Path) -> None:
    model = root.parent / "given.onnx"
    model.write_bytes(affine())
    entry.export_version(model)
    (root / "my-model/1/.manifest.json").write_text("{")
    assert lint(root) == []


def test_an_entry_that_is_not_there(repository: Path) -> None:
    with pytest.raises(NotFoundError, match="entries: "):
        lint(repository, "nothing")


def test_the_document_is_current() -> None:
    assert (ROOT / "docs/lint.md").read_text() == markdown()
