"""The log of a program that runs for long, as collectors read it."""

import asyncio
import json
import logging
from datetime import datetime

import pytest

from gravswell import logs

log = logging.getLogger("gravswell.tests")


@pytest.fixture
def configured(capsys):
    """``configured(form)`` sets up logging; ``lines()`` is what was written since."""

    def configure(form):
        logs.configure(logs.LogLevel.INFO, form)
        return lambda: capsys.readouterr().err.splitlines()  # noqa: PLW0108  read when it is called

    return configure


async def test_a_line_says_what_it_is_about_whoever_writes_it(configured):
    lines = configured(logs.LogFormat.JSON)

    async def deep() -> None:
        log.info("applying %s", "Service s")

    with logs.about(kind="InferenceServer", namespace="ns", name="s"):
        await asyncio.gather(deep(), asyncio.create_task(deep()))
        with logs.about(name="t", namespace=""):
            log.warning("größer")
    log.info("%d objects", 3)
    read = [json.loads(line) for line in lines()]
    assert all(datetime.fromisoformat(line.pop("time")).utcoffset() is not None for line in read)
    about = {"kind": "InferenceServer", "namespace": "ns", "name": "s"}
    first = {"level": "info", "logger": "gravswell.tests", **about, "message": "applying Service s"}
    assert read[:2] == [first, first]
    assert read[2] == {**first, "level": "warning", "name": "t", "message": "größer"}
    assert read[3] == {"level": "info", "logger": "gravswell.tests", "message": "3 objects"}


def test_an_exception_stays_on_its_line(configured):
    lines = configured(logs.LogFormat.JSON)
    log.error("failed", exc_info=RuntimeError("two\nlines"))
    (line,) = lines()
    assert json.loads(line)["exception"].endswith("RuntimeError: two\nlines")


def test_people_read_the_time_the_level_and_the_words(configured):
    lines = configured(logs.LogFormat.TEXT)
    with logs.about(kind="Model", name="m"):
        log.info("Model ns/m: version 1")
    (line,) = lines()
    assert line.split(maxsplit=1)[1] == "INFO    Model ns/m: version 1"
