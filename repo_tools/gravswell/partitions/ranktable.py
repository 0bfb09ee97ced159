"""The rank table: which rank is which device of which machine, in the JSON that HCCL's tools write (version 1.0)."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravswell.errors import InvalidInputError, NotFoundError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank is: ``server`` is the machine's address or name."""

    rank: int
    server: str
    device: int
    address: str = ""
    """Of the device itself, where it has one."""


def read_rank_table(path: Path) -> list[Place]:
    """The places of all ranks, rank 0 first.

    NotFoundError without the file. InvalidInputError, naming what is wrong, where it is no rank table, a rank is
    missing or stands twice, or two ranks have one device.
    """
    try:
        table = json.loads(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError(f"there is no rank table {path}") from None
    except ValueError as error:
        raise _wrong(path, f"it is no JSON: {error}") from None
    places = sorted(_places(path, table), key=lambda place: place.rank)
    if isinstance(table, dict) and table.get("status", "completed") != "completed":
        raise _wrong(path, f"its status is {table['status']!r}, not 'completed': it was not finished")
    if not places:
        raise _wrong(path, "it names no device")
    ranks = [place.rank for place in places]
    twice = [rank for rank, count in Counter(ranks).items() if count > 1]
    if twice:
        raise _wrong(path, f"rank {twice[0]} stands in it {ranks.count(twice[0])} times")
    missing = sorted(set(range(len(ranks))) - set(ranks))
    if missing:
        raise _wrong(path, f"it has {len(ranks)} ranks and not rank {missing[0]}: they are numbered from 0 on")
    devices = Counter((place.server, place.device) for place in places)
    for (server, device), count in devices.items():
        if count > 1:
            both = [str(place.rank) for place in places if (place.server, place.device) == (server, device)]
            raise _wrong(path, f"ranks {' and '.join(both)} both have device {device} of {server}")
    return places


def place_of(places: list[Place], rank: int, path: Path) -> Place:
    """Where ``rank`` is. InvalidInputError for one that is not in the table."""
    if not 0 <= rank < len(places):
        raise InvalidInputError(f"rank {rank} is not in {path}: its ranks are 0 to {len(places) - 1}")
    return places[rank]


def _places(path: Path, table: Any) -> list[Place]:
    if not isinstance(table, dict) or not isinstance(table.get("server_list"), list):
        raise _wrong(path, "it has no server_list")
    places = []
    for k, server in enumerate(table["server_list"]):
        where = f"server_list[{k}]"
        if not isinstance(server, dict) or not isinstance(server.get("device"), list):
            raise _wrong(path, f"{where} has no list of its devices, device")
        name = server.get("server_id")
        if not isinstance(name, str) or not name:
            raise _wrong(path, f"{where} has no server_id")
        for at, device in enumerate(server["device"]):
            inside = f"{where}.device[{at}]"
            if not isinstance(device, dict):
                raise _wrong(path, f"{inside} is no object")
            rank, number = (_number(path, inside, device, key) for key in ("rank_id", "device_id"))
            places.append(Place(rank, name, number, str(device.get("device_ip", ""))))
    return places


def _number(path: Path, where: str, device: dict[str, Any], key: str) -> int:
    """A number, which HCCL's tools write as a string."""
    value = device.get(key)
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text.isdecimal():
        raise _wrong(path, f"{where}.{key} is {value!r}, and should be a whole number from 0 on")
    return int(text)


def _wrong(path: Path, fact: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path} is no rank table: {fact}. One is "
        '{"version": "1.0", "status": "completed", "server_list": [{"server_id": "10.0.0.1", '
        '"device": [{"device_id": "0", "rank_id": "0"}]}]}'
    )
