"""Names that parts of the library agree on and that belong to none of them alone."""

PROOF_PREFIX = "gravswell-proof-"
"""Model names under which an agent proves a version before it is served: it unloads what bears one, so no entry may."""

MEMBER_PREFIX = "gravswell-member-"
"""Model names under which a server keeps the members of pipelines apart from what it serves to clients."""

_RESERVED = {PROOF_PREFIX: "versions under proof", MEMBER_PREFIX: "members of pipelines"}


def why_reserved(name: str) -> str | None:
    """Why no entry may bear that name; None where it may."""
    for prefix, purpose in _RESERVED.items():
        if name.startswith(prefix):
            return f"names that start with {prefix!r} are for {purpose}"
    return None
