"""The members of pipelines on a server: under which names it keeps them, and a pipeline's config that says so.

A repository's config names the entry and the version of each member. A server that loaded them under these names would
show them to clients beside, or in place of, what it serves of the same entry. It keeps each under a name of its own
instead: pipelines with the same version of an entry share it, and no client is told what it is called.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from gravswell.errors import InvalidInputError, VerificationError
from gravswell.names import MEMBER_PREFIX
from gravswell.quiver.composition.config import (
    MEMBER,
    access_of,
    member_value,
    parse_member_value,
    pinned_members,
)
from gravswell.quiver.config import ModelConfig, parse_config
from gravswell.quiver.reader import RepositoryReader

Names = Mapping[tuple[str, int], str]
"""What a server calls the members: from an entry's name and a version's number."""


def member_name(entry: str, digest: str, key: str = "") -> str:
    """What a server calls the version of ``entry`` with that ``digest`` where it is a member.

    ``key`` is a secret of the server: without it nobody can tell the name from the repository. For a version without a
    manifest, whatever tells it from others stands for the digest.
    """
    secret = hashlib.sha256("\n".join((key, entry, digest)).encode(errors="surrogateescape")).hexdigest()[:32]
    # The entry's own name tells people who read logs and metrics; others may have given it one that Triton cannot take.
    return f"{MEMBER_PREFIX}{re.sub('[^A-Za-z0-9_.-]', '_', entry)}-{secret}"


def renamed(config: Any, names: Names) -> Any:
    """A copy of a pipeline's ``config`` that calls its members by the server's ``names``; others keep theirs.

    Versions stay as they are: a member has under its new name the number that it has in its entry.
    """
    made = ModelConfig()
    made.CopyFrom(config)
    for step in made.ensemble_scheduling.step:
        step.model_name = names.get((step.model_name, step.model_version), step.model_name)
    for key, value in made.parameters.items():
        if key.startswith(MEMBER):
            model, version = parse_member_value(value.string_value)
            value.string_value = member_value(names.get((model, version), model), version)
    return made


def as_member(config: Any, name: str, version: int) -> Any:
    """A copy of an entry's ``config`` under which its ``version``, and no other, is loaded as the member ``name``."""
    made = ModelConfig()
    made.CopyFrom(config)
    made.name = name
    made.ClearField("version_policy")
    made.version_policy.specific.versions.append(version)
    return made


def opens_members(reader: RepositoryReader, pipeline: str, number: int) -> bool:
    """Whether a published version of ``pipeline`` lets clients call its members by themselves.

    One whose config cannot be understood does not: whoever serves it says what is wrong with it. UnavailableError where
    the repository does not give it.
    """
    try:
        text = reader.version_config(pipeline, number) or ""
        return access_of(parse_config(text, where=f"the config of {pipeline}/{number}")) == "public"
    except (InvalidInputError, VerificationError):
        return False


def member_keys(config: Any) -> list[tuple[str, int]]:
    """Entry and version of each member of a pipeline, once: the keys of its :data:`Names`."""
    return list(dict.fromkeys((member.model, member.version) for member in pinned_members(config)))
