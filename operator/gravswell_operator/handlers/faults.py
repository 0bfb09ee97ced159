"""What a list or a watch says and cannot be taken in."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gravswell_operator.cluster.resources import ResourceType

log = logging.getLogger(__name__)


@contextmanager
def taking_in(resource: ResourceType) -> Iterator[None]:
    """Log what goes wrong with one object, which must not keep all others from being seen: the watch goes on.

    The next complete look takes it in.
    """
    try:
        yield
    except Exception:
        log.exception("a fault of the operator: what was seen of %s was not taken in", resource.plural)
