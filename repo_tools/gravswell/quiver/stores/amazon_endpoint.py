"""Another server than Amazon's, as the environment names it."""

import os
import re
from urllib.parse import urlsplit

from gravswell.errors import InvalidInputError

_SECRET = re.compile(r"^([a-z]+://)?.*@", re.DOTALL | re.IGNORECASE)
"""All in a URL that may be a password, also where it is no URL for what is in that."""


def endpoint_of(url: str) -> str | None:
    """Another server than Amazon's. InvalidInputError for what is no address of one, of which the library panics."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        value = os.environ.get(name, "").strip()
        if not value:
            continue
        try:
            parts = urlsplit(value)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        shown = _SECRET.sub(r"\1…@", value)
        if not valid or any(c.isspace() for c in value):
            raise InvalidInputError(
                f"{url}: {name} is {shown!r}, and no URL: write it as http://minio.storage.svc:9000"
            )
        if shown != value:  # which errors would show, and nobody asks for
            raise InvalidInputError(
                f"{url}: {name} is {shown!r}, with a name or a password, which S3 does not know: take it out, and set "
                f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return value
    return None
