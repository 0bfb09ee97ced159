"""What ``--help`` shows of every command, and what README, docs and examples say that one types."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from gravswell.cli.app import _assemble, app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("charts/*/README.md"), *ROOT.glob("examples/**/*.yaml")]
)
IN_PROSE = re.compile(r"`(?:\.venv/bin/)?gravswell\s([^`]+)`")
IN_CODE = re.compile(r"(?:^|&& |\$ |\$\(|# +)(?:\.venv/bin/)?gravswell ([^#)\n]+)", re.M)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of the assembled command line, by the words that one types."""
    _assemble()

    def below(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, Any]]:
        yield " ".join(words), command
        for name, one in getattr(command, "commands", {}).items():
            yield from below((*words, name), one)

    return below(("gravswell",), typer.main.get_command(app))


COMMANDS = dict(commands())


def typed(document: Path) -> Iterator[str]:
    """What follows ``gravswell`` on the command lines of a document."""
    if document.suffix == ".yaml":
        yield from (line for line in IN_CODE.findall(document.read_text()) if ":" not in line)
        return
    for place, text in enumerate(document.read_text().split("```")):
        yield from (IN_CODE if place % 2 else IN_PROSE).findall(text)


def in_one_line(text: str) -> str:
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_all_that_is_written(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What looks like markup is left out, or ends the command with a traceback."""
    monkeypatch.setenv("COLUMNS", "1000")
    command = COMMANDS[name]
    context = command.make_context(name, [], resilient_parsing=True)
    shown = in_one_line(command.get_help(context) + capsys.readouterr().out)  # rich prints it at once
    for parameter in command.params:
        if not parameter.hidden:
            assert parameter.help, f"{parameter.name} is not described"
            assert in_one_line(parameter.help.replace("\\[", "[")) in shown
    assert "``" not in shown
    for paragraph in (command.help or "").split("\f")[0].split("\n\n"):
        assert in_one_line(paragraph).strip() in shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_commands_and_options_that_there_are(document: Path) -> None:
    for line in typed(document):
        words = shlex.split(line.replace("'", "").replace("…", " "))
        command = COMMANDS["gravswell"]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        if command is COMMANDS["gravswell"]:
            assert words[0].startswith("--"), f"there is no `gravswell {line}`"
        known = {"--help"} | {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        for word in words:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in known, f"`gravswell {line}`: {command.name} has no {word}"


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`(?:gravswell )?([a-z]+)(?: [^`]*)?`", readme))
    assert not set(COMMANDS["gravswell"].commands) - named
