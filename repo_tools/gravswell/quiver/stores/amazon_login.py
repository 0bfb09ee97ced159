"""Who asks at Amazon, found as Amazon's own tools find it.

Keys, a web identity, a container's or a machine's role in the environment: these the library finds itself. Else the
profile that ``AWS_PROFILE`` names (``default``): the keys in ``~/.aws/credentials``; what gets its keys elsewhere, by
single sign-on, another role or a program, needs ``boto3``, where that can be imported.
"""

import os
from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gravswell.errors import AccessDeniedError

if TYPE_CHECKING:
    from obstore.store import S3Config

Option = Literal["access_key_id", "secret_access_key", "session_token", "region", "default_region"]

_IN_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_OPTIONS: Mapping[str, Option] = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
    "AWS_REGION": "region",
    "AWS_DEFAULT_REGION": "default_region",
}
"""What the library reads itself, and the option that comes before it."""

_ELSEWHERE = ("role_arn", "sso_session", "sso_start_url", "credential_process", "login_session")


@dataclass(frozen=True, slots=True)
class Login:
    """What the library does not find itself: options, and what it calls for keys, now and when they expire."""

    config: "S3Config"
    provider: Any = None


def amazon_login(url: str) -> Login:
    """Who asks for ``url``. AccessDeniedError, with the ways out, where the profile's keys cannot be had."""
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    section = name if name == "default" else f"profile {name}"
    settings = _section("AWS_CONFIG_FILE", "config", section)
    config: S3Config = {}
    if not os.environ.get("AWS_REGION") and not os.environ.get("AWS_DEFAULT_REGION") and "region" in settings:
        config["region"] = settings["region"]
    for variable, option in _OPTIONS.items():
        value = os.environ.get(variable, "")
        if value != value.strip():  # of a Secret that was made of a file: no request can have a line's end in it
            config[option] = value.strip()
    if any(os.environ.get(variable) for variable in _IN_ENVIRONMENT):
        return Login(config)
    keys = {**settings, **_section("AWS_SHARED_CREDENTIALS_FILE", "credentials", name)}
    elsewhere = next((setting for setting in _ELSEWHERE if setting in keys), None)
    if elsewhere is not None:
        return Login(config, _by_boto3(url, name, elsewhere))
    if "aws_access_key_id" in keys and "aws_secret_access_key" in keys:
        config["access_key_id"] = keys["aws_access_key_id"]
        config["secret_access_key"] = keys["aws_secret_access_key"]
        if "aws_session_token" in keys:
            config["session_token"] = keys["aws_session_token"]
    elif not keys and name != "default":
        raise AccessDeniedError(f"{url}: there is no profile {name} in ~/.aws; `aws configure` makes one")
    return Login(config)


def _by_boto3(url: str, name: str, setting: str) -> Any:
    try:
        import boto3  # noqa: PLC0415 - no dependency: it holds python-dateutil below version 3
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    except ModuleNotFoundError:
        raise AccessDeniedError(
            f"{url}: the profile {name} gets its keys elsewhere ({setting}): "
            f'run `eval "$(aws configure export-credentials --profile {name} --format env)"`, or pip install boto3'
        ) from None
    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=name))
    except Exception as error:  # botocore's errors have no base that a missing import could name
        raise AccessDeniedError(f"{url}: the profile {name} gives no keys ({error}): log in again") from error


def _section(variable: str, file: str, section: str) -> Mapping[str, str]:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.read(Path(os.environ.get(variable) or f"~/.aws/{file}").expanduser())
    return dict(parser[section]) if parser.has_section(section) else {}
