"""The kinds of model that an entry can hold."""

import enum

from gravswell.errors import InvalidInputError


class Platform(enum.StrEnum):
    """Triton's platform names, under short ones."""

    ONNX = "onnxruntime_onnx"
    PIPELINE = "ensemble"
    """A pipeline over other entries. A version that needs Python states ``backend: "python"`` in place of it."""

    @classmethod
    def parse(cls, value: "Platform | str") -> "Platform":
        """The platform of that short name (``onnx``) or Triton name; InvalidInputError names those that exist."""
        for platform in cls:
            if value in (platform, platform.value) or str(value).lower() == platform.name.lower():
                return platform
        known = ", ".join(f"{p.name.lower()} ({p.value})" for p in cls)
        raise InvalidInputError(f"{value!r} is no platform that can be exported to; there is: {known}")
