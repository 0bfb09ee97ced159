"""Decisions: desired, loaded and local in, the next step out. Pure; no clock, no disk, no Triton."""

import enum
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gravswell.serving.agent.loadconfig import Loaded, load_key
from gravswell.serving.contracts import PRIVATE_PREFIX, Desired, DesiredModel, Verification

KEEP = 2
"""How many versions of an entry stay on disk: what serves, and the one before, so that a roll-back needs no bucket."""


class Step(enum.Enum):
    """What one model needs next."""

    FETCH = "fetch"
    """Bring the version's files to this machine, every hash checked."""
    VERIFY = "verify"
    """Reproduce its golden tensors under a private name, before any traffic."""
    RESTORE = "restore"
    """Triton serves nothing under this name and the desired version is not at hand: load the last good one first."""
    LOAD = "load"
    """Load for traffic."""
    PROVE = "prove"
    """It is loaded; see that it answers rightly under its own name."""
    NONE = "none"
    """It is as desired."""


def identity(model: DesiredModel) -> str:
    """Name of a version's content: its digest; for one without a manifest, a hash of its entry and number."""
    return model.digest or "unverified-" + hashlib.sha256(f"{model.name}@{model.version}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Facts:
    """What is known of one model when its next step is decided."""

    loaded: Loaded | None = None
    """What Triton serves under the model's name."""
    placed: Mapping[int, str] = field(default_factory=dict)
    """Versions in the model's own folder: number → identity."""
    staged: Collection[str] = ()
    """Identities that are fetched and not yet placed."""
    lacking: bool = False
    """A member of the desired version, which is a pipeline, is not here."""
    verified: Collection[str] = ()
    """Identities whose golden tensors this Triton has reproduced."""
    proven: bool = False
    """What is loaded answered rightly under the model's own name."""
    proof_tried: bool = False
    """That proof was tried on what is loaded, with whatever result."""
    last_good: DesiredModel | None = None
    """What was last loaded with success under this name, if its files are still placed."""
    restorable: bool = True
    """False after :attr:`last_good` failed to load again."""
    cpu_only: bool = False


def next_step(model: DesiredModel, facts: Facts) -> Step:
    """The first step that ``model`` still lacks."""
    key = load_key(model, cpu_only=facts.cpu_only)
    if facts.loaded is not None and facts.loaded.key == key:
        return Step.NONE if facts.proven else Step.PROVE
    if facts.loaded is not None and facts.loaded.version in facts.placed and not (facts.proven or facts.proof_tried):
        return (
            Step.PROVE
        )  # an earlier version, found after a restart: it counts for readiness until its successor serves

    here = identity(model)
    at_hand = (facts.placed.get(model.version) == here or here in facts.staged) and not facts.lacking
    must_verify = model.verification is Verification.GOLDEN and here not in facts.verified
    if facts.loaded is None and facts.restorable and (must_verify or not at_hand) and can_restore(model, facts):
        return Step.RESTORE
    if not at_hand:
        return Step.FETCH
    return Step.VERIFY if must_verify else Step.LOAD


def can_restore(model: DesiredModel, facts: Facts) -> bool:
    """Whether an earlier version than the desired one can serve meanwhile."""
    good = facts.last_good
    return good is not None and identity(good) != identity(model) and facts.placed.get(good.version) == identity(good)


def to_unload(desired: Desired, loaded: Iterable[str]) -> list[str]:
    """Names that Triton serves and nobody desires. Private names are left to the proofs that run under them."""
    wanted = {model.name for model in desired.models}
    return sorted(name for name in loaded if name not in wanted and not name.startswith(PRIVATE_PREFIX))


def to_collect(
    desired: Desired,
    loaded: Mapping[str, Loaded],
    placed: Mapping[str, Mapping[int, str]],
    recent: Mapping[str, Sequence[int]],
    members: Collection[str] = (),
) -> list[tuple[str, int]]:
    """Placed versions that nothing needs: (entry, number).

    Kept are the desired, the loaded, and of the recently served (newest first) so many that :data:`KEEP` remain; and
    ``members``, the identities of what pipelines are made of.
    """
    wanted = {model.name: model.version for model in desired.models}
    surplus = []
    for entry, versions in placed.items():
        serves = loaded[entry].version if entry in loaded else None
        keep = {number for number in (wanted.get(entry), serves) if number in versions}
        if entry in wanted:
            for number in recent.get(entry, ()):
                if len(keep) < KEEP and number in versions:
                    keep.add(number)
        keep |= {number for number, name in versions.items() if name in members}
        surplus += [(entry, number) for number in sorted(versions) if number not in keep]
    return surplus


def stale_stages(desired: Desired, staged: Iterable[str], members: Iterable[str] = ()) -> list[str]:
    """Identities that were fetched for something no longer desired, and that are none of ``members``."""
    wanted = {identity(model) for model in desired.models} | set(members)
    return sorted(name for name in staged if name not in wanted)
