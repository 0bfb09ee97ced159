"""The documents in ConfigMaps, parsed once for each content."""

from collections.abc import Collection
from functools import lru_cache

from pydantic import ValidationError

from gravswell.serving.contracts import (
    DESIRED_KEY,
    LISTING_KEY,
    SERVED_KEY,
    Desired,
    Listing,
    Report,
    Served,
    report_part,
)
from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key
from gravswell_operator.reconcile.context import Context
from gravswell_operator.state import ConfigMapState


@lru_cache(maxsize=256)
def _listing(text: str) -> tuple[Listing | None, str]:
    try:
        return Listing.model_validate_json(text), ""
    except ValidationError as error:
        return None, _words(error)


@lru_cache(maxsize=2048)
def _desired(text: str) -> Desired | None:
    try:
        return Desired.model_validate_json(text)
    except ValidationError:
        return None  # the operator's own document, so it is written anew


@lru_cache(maxsize=8192)
def _report(text: str) -> Report | None:
    try:
        return Report.model_validate_json(text)
    except ValidationError:
        return None  # of an agent of another release: the replica counts as one that has not reported


@lru_cache(maxsize=256)
def _served(text: str) -> Served | None:
    try:
        return Served.model_validate_json(text)
    except ValidationError:
        return None  # the operator's own document, so it is written anew


def _words(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or 'the document'}: {first['msg']}"


def listing(state: ConfigMapState | None, url: str | None) -> tuple[Listing | None, str]:
    """A repository's listing, or None and why what is there cannot be read (empty when nothing is there).

    One of another repository than ``url``, as its user gives it, is not there: the url was changed since. With None,
    whatever is listed counts.
    """
    text = state.data.get(LISTING_KEY) if state is not None else None
    found, why = _listing(text) if text else (None, "")
    if found is not None and url not in (None, found.repository):
        return None, ""
    return found, why


def holdings(state: ConfigMapState | None, url: str | None) -> Listing | None:
    """The :func:`listing` to resolve versions by; None while what ``url`` holds was never seen."""
    found, _ = listing(state, url)
    return found if found is not None and (found.accessible or found.entries) else None


def desired(state: ConfigMapState | None) -> Desired | None:
    """The desired state in the ConfigMap of a server's agents."""
    text = state.data.get(DESIRED_KEY) if state is not None else None
    return _desired(text) if text else None


def told(context: Context, server: Key) -> Desired | None:
    """What the agents of ``server`` were told last."""
    return desired(context.child(resources.CONFIG_MAP, server.namespace, names.desired_configmap(server.name)))


def report_maps(context: Context, server: Key) -> dict[str, ConfigMapState | None]:
    """The ConfigMaps that the server's agents were told to write into, by name, in the order of their parts."""
    last = told(context, server)
    parts = names.report_configmaps(server.name, last.reports if last is not None else 1)
    return {name: context.child(resources.CONFIG_MAP, server.namespace, name) for name in parts}


def reports(states: Collection[ConfigMapState | None]) -> dict[str, Report]:
    """What a server's agents say, by pod; ``states`` are all the parts of it, in their order.

    An agent that moves to another part is in two for a moment, and one of an earlier release stays in the first.
    """
    found: dict[str, Report] = {}
    for part, state in enumerate(states):
        for pod, text in state.data.items() if state is not None else ():
            if pod in found and report_part(pod, len(states)) != part:
                continue
            if (report := _report(text)) is not None:
                found[pod] = report
    return found


def served(state: ConfigMapState | None) -> Served | None:
    """What a repository's lister was told to pin last."""
    text = state.data.get(SERVED_KEY) if state is not None else None
    return _served(text) if text else None
