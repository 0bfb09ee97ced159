"""What every file of ours that names its ``schema`` shares: telling a newer one from a damaged one."""

import json

from pydantic import BaseModel

from gravswell.errors import VerificationError


def check_age(data: bytes, kind: type[BaseModel], *, where: str) -> None:
    """VerificationError when ``data``, which is no ``kind``, says that it is one of another ``schema``."""
    known = str(kind.model_fields["schema_"].default)
    try:
        parsed = json.loads(data)
    except ValueError:  # UnicodeDecodeError is one too
        return
    schema = parsed.get("schema") if isinstance(parsed, dict) else None
    if isinstance(schema, str) and schema != known and schema.startswith(known.rpartition("/")[0] + "/"):
        raise VerificationError(f"{where} is {schema}, made by a newer gravswell; this one reads {known}: upgrade it")
