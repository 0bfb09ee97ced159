"""``gravswell agent`` on the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gravswell.cli import agent as command
from gravswell.cli.app import app
from gravswell.errors import InvalidInputError

from ...commands import Run, run
from .running import MakeAgent, until

__all__ = ["run"]


def invoke(*arguments: str) -> Exception:
    found = CliRunner().invoke(app, ["agent", *arguments])
    assert isinstance(found.exception, Exception), found.output
    return found.exception


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--repository", "r", "--models", "m", "--follow-latest", "--device", "tpu"], "use auto or cpu"),
        (["run", "--repository", "r", "--models", "m"], "exactly one of"),
        (["run", "--repository", "r", "--models", "m", "--follow-latest", "--storage-limit", "big"], "10Gi"),
        (["run", "--repository", "r", "--models", "m", "--follow-latest", "--memory-limit", "big"], "10Gi"),
        (
            ["run", "--repository", "r", "--models", "m", "--follow-latest", "--cache-limit", "1Gi"],
            "--cache may become",
        ),
        (["list", "--repository", "r"], "--once prints instead"),
        (["list", "--repository", "r", "--listing", "l", "--interval", "soon"], "write 30s"),
    ],
)
def test_options_that_cannot_be_right(arguments: list[str], words: str):
    error = invoke(*arguments)
    assert isinstance(error, InvalidInputError)
    assert words in str(error)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1073741824", 2**30), ("10Gi", 10 * 2**30), ("1.5Mi", 3 * 2**19), ("500M", 500_000_000), ("2k", 2000)],
)
def test_sizes(text: str, count: int):
    assert command.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "Gi", "-1Gi", "10GB", "1e3", "10 Gi"])
def test_what_is_no_size(text: str):
    with pytest.raises(InvalidInputError):
        command.parse_bytes(text)


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_listing_of_what_is_not_there_ends_with_the_error(run: Run, output: str):
    listed = run("agent", "list", "--repository", "absent", "--once", "--output", output)
    assert (listed.code, listed.out) == (3, "")
    assert "absent" in listed.err


async def test_a_wrong_key_is_told_where_one_looks(agent: MakeAgent, tmp_path: Path):
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed")
    async with agent(key_file=wrong) as running:
        running.desire()
        await until(lambda: "restricted" in running.ledger.triton_problem, "the refusal is known")
        assert not running.ledger.triton_version
