"""What Triton would refuse, guess or silently ignore in a repository, told before it is served.

Its law: :mod:`~gravswell.quiver.lint.rules` says what each rule is, :mod:`~gravswell.quiver.lint.facts` looks at the
repository once, and the checks are functions of that alone. What a configuration shows by itself is checked in
:mod:`gravswell.quiver.checks`, as it is wherever one is written. Nothing is written here. A rule is called
``refused`` only where the embedded Triton refuses it in ``tests/quiver/lint``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from gravswell.errors import AccessDeniedError, NotFoundError
from gravswell.quiver.checks import findings
from gravswell.quiver.fetching import Progress
from gravswell.quiver.lint import members, rules, structure, tensors
from gravswell.quiver.lint.facts import ModelFacts, World
from gravswell.quiver.lint.rules import RULES, Finding, Rule, Severity
from gravswell.quiver.stores import Store, open_store
from gravswell.targets import Target, target_of

__all__ = ["RULES", "Finding", "Rule", "Severity", "Target", "lint", "target_of"]


def lint(
    repository: str | Path | Store,
    entry: str | None = None,
    *,
    target: Target | None = None,
    on_model: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Everything that a plain Triton would refuse, guess or ignore of ``entry``, or of every folder; the worst first.

    A version that gravswell published is judged by its manifest, any other by its graph, which is fetched where the
    repository is in a bucket. Only versions that the config's ``version_policy`` chooses are looked into.

    :param target: also check the graphs' age against what this Triton takes (:func:`target_of` a tag).
    :param on_model: called with each model's name before it is looked at.
    :param progress: of fetching a model.
    :raises NotFoundError: there is no such entry.
    """
    store = repository if isinstance(repository, Store) else open_store(repository)
    world = World(store, progress, target, everything=entry is None)

    def look(name: str) -> ModelFacts | AccessDeniedError | None:
        on_model(name)
        try:
            return world.model(name)
        except NotFoundError:
            return None  # removed meanwhile
        except AccessDeniedError as error:  # as a volume's lost+found, which Triton tries to read too
            return error

    names = world.names if entry is None else (entry,)
    seen = dict(zip(names, store.in_parallel(look, names), strict=True))
    if entry is not None and seen[entry] is None:
        known = ", ".join(world.names) or "none"
        raise NotFoundError(f"there is no entry {entry!r} in {store.location('')}; entries: {known}")
    found: list[Finding] = []
    for name, model in seen.items():
        if isinstance(model, AccessDeniedError):
            found.append(rules.NO_MODEL.at(name, str(model)))
        elif model is not None:
            found += _check(model, world, target)
    order = list(Severity)
    return sorted(found, key=lambda f: (order.index(f.severity), f.place))


def _check(model: ModelFacts, world: World, target: Target | None) -> Iterator[Finding]:
    if model.unreadable is not None:
        yield rules.CONFIG_UNREADABLE.at(model.place, model.unreadable)
        return
    for name in model.unknown:
        yield rules.FIELD_UNKNOWN.at(model.place, f"{name} is, or holds, a field that ModelConfig does not have")
    if model.text is None and not model.has_model_file:
        yield rules.NO_MODEL.at(model.name, "the folder holds neither config.pbtxt nor a version of a model")
        return
    yield from structure.check_name(model)
    yield from structure.check_versions(model)
    yield from structure.check_platform(model)
    yield from tensors.check_stated(model)
    yield from findings(model.config, model.place)
    yield from members.check_side_files(model)
    for version in model.loaded:
        yield from structure.check_files(model, version)
        yield from tensors.check_graph(model, version, target)
    yield from members.check_members(model, world)
    yield from members.check_called(model, world)
    yield from structure.check_published(model)
