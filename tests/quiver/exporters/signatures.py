"""What an entry states of its tensors, in short."""

from typing import Any

Signature = dict[str, tuple[str, tuple[int, ...]]]


def shapes(records: dict[str, Any]) -> Signature:
    return {name: (record.data_type, record.dims) for name, record in records.items()}
