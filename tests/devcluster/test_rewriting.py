import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravswell_operator.devcluster.node.rewriting import rewriter

MOUNTS = {"/models": "/h/m", "/models/sub": "/h/s", "/run/gravswell": "/h/run", "/repository/": "/h/repo"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/models", "/h/m"),
        ("/models/a/1", "/h/m/a/1"),
        ("--model-repository=/models", "--model-repository=/h/m"),
        ("/models/sub/x", "/h/s/x"),
        ("/models/subway", "/h/m/subway"),
        ("key:$(cat /run/gravswell/key)", "key:$(cat /h/run/key)"),
        ("file:///repository/path", "file:///h/repo/path"),
        ("a:/models:/models/sub", "a:/h/m:/h/s"),
        ('"/models"', '"/h/m"'),
        ("see /models.", "see /h/m."),
        # not these
        ("/models2", "/models2"),
        ("/models-x", "/models-x"),
        ("/models.old", "/models.old"),
        ("/data/models", "/data/models"),
        ("./models", "./models"),
        ("~/models", "~/models"),
        ("${HOME}/models", "${HOME}/models"),
        ("https://models/run", "https://models/run"),
        ("models", "models"),
    ],
)
def test_paths_are_rewritten_at_their_boundaries(text, wanted):
    assert rewriter(MOUNTS)(text) == wanted


def test_what_was_put_in_is_not_rewritten_again():
    assert rewriter({"/a": "/b/a", "/b": "/c"})("/a /b") == "/b/a /c"


def test_the_root_cannot_be_mounted_over():
    assert rewriter({"/": "/h"})("/etc/passwd") == "/etc/passwd"


@given(st.text(alphabet="/ab.-_ :=", max_size=30))
def test_a_text_without_the_mount_path_stays(text):
    assert rewriter({"/nowhere": "/h"})(text) == text
