import pytest

from gravswell_operator.conditions import Reason
from gravswell_operator.desired.images import image_problem


@pytest.mark.parametrize(
    "image",
    [
        "nvcr.io/nvidia/tritonserver:24.08-py3",
        "nvcr.io/nvidia/tritonserver:25.01",
        "registry.example:5000/team/triton:mine",
        "registry.example/team/triton@sha256:" + "0" * 64,
        "tritonserver",
    ],
)
def test_usable(image):
    assert image_problem(image) is None


@pytest.mark.parametrize("image", ["nvcr.io/nvidia/tritonserver:24.07-py3", "x/triton:20.11-py3", "triton:23.12"])
def test_too_old(image):
    problem = image_problem(image)
    assert problem is not None
    assert problem.reason is Reason.IMAGE_TOO_OLD
    assert "24.08 or newer" in problem.message


@pytest.mark.parametrize("image", ["", "has space:24.08", "x/Upper:24.08", "triton:", "http://x/triton:24.08", "a//b"])
def test_no_image(image):
    problem = image_problem(image)
    assert problem is not None
    assert problem.reason is Reason.INVALID_IMAGE
