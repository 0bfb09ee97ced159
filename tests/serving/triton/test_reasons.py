"""What people read of a failure in a Python backend: its words, and nothing of the server's files."""

import pytest

from gravswell.serving.triton.reasons import tidy_reason, without_traceback

RAISED = "Failed to process the request(s) for model 'scale_0_0', message: {}\n\nAt:\n  /opt/model.py(263): execute\n"


@pytest.mark.parametrize(
    ("said", "words", "tidy"),
    [
        (RAISED.format("BackendError: out of bounds"), "out of bounds", "out of bounds"),
        (RAISED.format("KeyError: 'x'"), "KeyError: 'x'", "'x'"),
        (
            "Internal: BackendError: no such file\n\nAt:\n  a.py(1): f",
            "Internal: BackendError: no such file",
            "no such file",
        ),
        ("inference input 'x' is missing", "inference input 'x' is missing", "inference input 'x' is missing"),
    ],
)
def test_the_words_alone(said: str, words: str, tidy: str) -> None:
    assert without_traceback(said) == words
    assert tidy_reason(said) == tidy
