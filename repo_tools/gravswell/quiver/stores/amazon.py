"""``s3://bucket``: Amazon S3 and whatever speaks its protocol (MinIO, Ceph, R2…), configured as Amazon's own tools are.

``AWS_ACCESS_KEY_ID`` and its companions, a web identity or the machine's own role; else the keys of ``AWS_PROFILE`` in
``~/.aws/credentials``. ``AWS_ENDPOINT_URL`` (or ``AWS_ENDPOINT_URL_S3``) names another server, ``AWS_REGION`` a region.
"""

import os
from configparser import ConfigParser
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.store import S3Store

from gravswell.quiver.stores.rust import RustObjects, client, retries

if TYPE_CHECKING:
    from obstore.store import S3Config

_IN_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def amazon_objects(bucket: str) -> RustObjects:
    """The objects of ``s3://bucket``."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config: S3Config = {"checksum_algorithm": "SHA256", **_profile()}
    if endpoint:
        config["endpoint"] = endpoint
    return RustObjects(
        S3Store(bucket, config=config, client_options=client(endpoint), retry_config=retries()),
        url=f"s3://{bucket}",
        way_to_make=f"aws s3 mb s3://{bucket}",
        way_to_log_in=(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for keys in ~/.aws/credentials, of an "
            "account that may list the bucket and read, write and delete its objects"
        ),
    )


def _profile() -> "S3Config":
    """What the user's AWS files say and the environment does not; the library reads only the latter."""
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    found: S3Config = {}
    if not any(os.environ.get(variable) for variable in _IN_ENVIRONMENT):
        keys = _section("AWS_SHARED_CREDENTIALS_FILE", "credentials", name)
        if "aws_access_key_id" in keys and "aws_secret_access_key" in keys:
            found["access_key_id"] = keys["aws_access_key_id"]
            found["secret_access_key"] = keys["aws_secret_access_key"]
            if "aws_session_token" in keys:
                found["session_token"] = keys["aws_session_token"]
    if not os.environ.get("AWS_REGION") and not os.environ.get("AWS_DEFAULT_REGION"):
        region = _section("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}").get("region")
        if region:
            found["region"] = region
    return found


def _section(variable: str, file: str, section: str) -> dict[str, str]:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.read(Path(os.environ.get(variable) or f"~/.aws/{file}").expanduser())
    return dict(parser[section]) if parser.has_section(section) else {}
