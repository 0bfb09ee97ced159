"""What a user types: ``A=2``, ``B=4x1``, ``C=4@2,shared``, and of what is held already ``other=0-1``."""

import re

from gravswell.errors import InvalidInputError
from gravswell.placement.groups import Group, Held, Wish

DEFAULT_COPIES = 4
"""Of a model whose name stands alone: ``4x1``, a model of one device on each of four."""

_NAME, _NUMBER = "[^=@,]+", "[0-9]{1,9}"
_WISH = re.compile(
    f"(?P<name>{_NAME})(=((?P<copies>{_NUMBER})x)?(?P<devices>{_NUMBER}))?(@(?P<start>{_NUMBER}))?(?P<shared>,shared)?"
)
_HELD = re.compile(f"(?P<name>{_NAME})=(?P<first>{_NUMBER})(-(?P<last>{_NUMBER}))?(?P<shared>,shared)?")


def parse_wish(text: str) -> Wish:
    """``NAME[=[COPIESx]DEVICES][@START][,shared]``; a name alone is ``NAME=4x1``.

    Raises :class:`InvalidInputError` for any other text, and as :class:`Wish` does.
    """
    found = _WISH.fullmatch(text.strip())
    if found is None:
        raise InvalidInputError(
            f"{text!r} asks for no devices: write NAME=2, or NAME=4x1 for 4 copies of one device each; @6 behind it "
            "names the first device, and ,shared lets others use them too"
        )
    copies, devices = (1, int(found["devices"])) if found["devices"] else (DEFAULT_COPIES, 1)
    return Wish(
        name=found["name"].strip(),
        devices=devices,
        copies=int(found["copies"]) if found["copies"] else copies,
        start=int(found["start"]) if found["start"] else None,
        shared=found["shared"] is not None,
    )


def parse_held(text: str) -> Held:
    """``NAME=FIRST[-LAST][,shared]``: devices that somebody holds already.

    Raises :class:`InvalidInputError` for any other text.
    """
    found = _HELD.fullmatch(text.strip())
    first = int(found["first"]) if found else 0
    last = int(found["last"]) if found and found["last"] else first
    if found is None or last < first:
        raise InvalidInputError(f"{text!r} holds no devices: write NAME=0-1 or NAME=3, and ,shared if others may too")
    return Held(found["name"].strip(), Group(first, last - first + 1), shared=found["shared"] is not None)
