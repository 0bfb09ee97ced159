import pytest

from gravswell_operator.devcluster.node.images import GRAVSWELL, TRITON, UnknownImageError, command_line, resolve


@pytest.mark.parametrize(
    ("reference", "image"),
    [
        ("nvcr.io/nvidia/tritonserver:24.08-py3", TRITON),
        ("tritonserver", TRITON),
        ("mirror.example:5000/nvidia/tritonserver@sha256:abc", TRITON),
        ("ghcr.io/gravswell/gravswell:0.1.0", GRAVSWELL),
        ("localhost:5000/gravswell", GRAVSWELL),
    ],
)
def test_known_images_are_known_at_any_tag_and_registry(reference, image):
    assert resolve(reference) is image


@pytest.mark.parametrize("reference", ["nginx", "ghcr.io/gravswell/other:1", "tritonserver-sdk", "tritonserver/x"])
def test_other_images_are_refused_with_what_is_known(reference):
    with pytest.raises(UnknownImageError, match=r"tritonserver.*gravswell"):
        resolve(reference)


@pytest.mark.parametrize(
    ("command", "arguments", "wanted"),
    [
        (None, ["agent"], ["gravswell", "agent"]),
        (["sh", "-c"], ["x"], ["sh", "-c", "x"]),
        (["env"], None, ["env"]),
        (None, None, ["gravswell"]),
    ],
)
def test_command_and_arguments_follow_kubernetes(command, arguments, wanted):
    assert command_line(GRAVSWELL, command, arguments) == wanted
