"""The documents in ConfigMaps, parsed once for each content."""

from functools import lru_cache

from pydantic import ValidationError

from gravswell.serving.contracts import DESIRED_KEY, LISTING_KEY, SERVED_KEY, Desired, Listing, Report, Served
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
    """What a server's agents were told last."""
    text = state.data.get(DESIRED_KEY) if state is not None else None
    return _desired(text) if text else None


def reports(state: ConfigMapState | None) -> dict[str, Report]:
    """What a server's agents say, by pod."""
    data = state.data if state is not None else {}
    return {pod: report for pod, text in data.items() if (report := _report(text)) is not None}


def served(state: ConfigMapState | None) -> Served | None:
    """What a repository's lister was told to pin last."""
    text = state.data.get(SERVED_KEY) if state is not None else None
    return _served(text) if text else None
