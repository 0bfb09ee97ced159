"""What an ``InferenceServer`` names, and why nothing is changed for it while that is not as it must be."""

from gravswell_operator import conditions, names
from gravswell_operator.api import GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.conditions import Finding, Reason
from gravswell_operator.desired.models import Resolution
from gravswell_operator.desired.placement import merged_selector, pool_node_selector
from gravswell_operator.desired.source import source
from gravswell_operator.state import Problem, Unreadable


def blocker(
    server: InferenceServer, repository: ModelRepository | Unreadable | None, pool: GPUNodePool | Unreadable | None
) -> Problem | None:
    """The first reason not to touch anything for this server; checked before anything is made."""
    if repository is None:
        return _repository_missing(server)
    if isinstance(repository, Unreadable):
        return repository.problem()
    if (problem := _pool_problem(server, pool)) is not None:
        return problem
    assert not isinstance(pool, Unreadable)
    try:
        merged_selector(
            source(repository).node_selector,
            pool_node_selector(pool) if pool is not None else {},
            server.spec.pod_template.node_selector,
        )
    except ValueError as error:
        return Problem(Reason.NODE_SELECTOR_CONFLICT, str(error))
    return None


def forgotten(server: InferenceServer, resolution: Resolution) -> Problem | None:
    """Why nothing may be written though everything that the server refers to is there."""
    repository = server.spec.repository_ref.name
    if resolution.missing:
        missing = "; ".join(f"{entry}: {resolution.unresolved[entry].message}" for entry in resolution.missing)
        return Problem(
            Reason.MODELS_UNRESOLVED,
            f"ModelRepository {repository} has the new url {resolution.moved_to}, which lacks what is served "
            f"({missing}). The server stays on {resolution.desired.repository}, and nothing changes, until it is there",
        )
    if resolution.moved_to:
        return Problem(
            Reason.NOT_RESOLVED_YET,
            f"ModelRepository {repository} has the new url {resolution.moved_to}, which was not listed yet; its own "
            "conditions say why. What is served stays, and nothing is changed until it is listed",
        )
    if resolution.too_new:
        return Problem(
            Reason.OPSET_TOO_NEW,
            f"{'; '.join(resolution.too_new)}. What is served stays, and nothing is changed until then",
        )
    if not resolution.lost:
        return None
    return Problem(
        Reason.NOT_RESOLVED_YET,
        f"ConfigMap {names.desired_configmap(server.metadata.name)} no longer says which versions are served, and "
        f"nothing else does of {', '.join(resolution.lost)}; they stay loaded, and nothing is changed until "
        f"ModelRepository {repository} is listed, or Models say what to serve",
    )


def _repository_missing(server: InferenceServer) -> Problem:
    return Problem(
        Reason.REPOSITORY_NOT_FOUND,
        f"there is no ModelRepository {server.spec.repository_ref.name} in namespace {server.metadata.namespace}; "
        "apply it, or mend repositoryRef",
    )


def _pool_problem(server: InferenceServer, pool: GPUNodePool | Unreadable | None) -> Problem | None:
    reference = server.spec.node_pool_ref
    if reference is None:
        return None
    if pool is None:
        return Problem(
            Reason.NODE_POOL_NOT_FOUND, f"there is no GPUNodePool {reference.name}; apply it, or mend nodePoolRef"
        )
    if isinstance(pool, Unreadable):
        return pool.problem()
    allowed = pool.spec.allowed_namespaces
    if allowed and server.metadata.namespace not in allowed:
        return Problem(
            Reason.NODE_POOL_NOT_ALLOWED,
            f"GPUNodePool {reference.name} allows the namespaces {', '.join(allowed)} and not "
            f"{server.metadata.namespace}; use another pool, or add it to allowedNamespaces",
        )
    if server.spec.gpus > pool.spec.accelerator.count:
        return Problem(
            Reason.TOO_MANY_GPUS,
            f"a replica asks for {server.spec.gpus} GPUs and each node of GPUNodePool {reference.name} has "
            f"{pool.spec.accelerator.count}; lower gpus, or use a pool of larger nodes",
        )
    return None


def findings(
    server: InferenceServer, repository: ModelRepository | Unreadable | None, pool: GPUNodePool | Unreadable | None
) -> list[Finding]:
    """The conditions about what the server names."""
    return [_repository(server, repository), *_pool(server, pool)]


def _repository(server: InferenceServer, repository: ModelRepository | Unreadable | None) -> Finding:
    name = server.spec.repository_ref.name
    if repository is None or isinstance(repository, Unreadable):
        problem = repository.problem() if repository is not None else _repository_missing(server)
        return Finding(conditions.REPOSITORY_RESOLVED, False, problem.reason, problem.message)
    message = f"ModelRepository {name}: {repository.spec.url}"
    return Finding(conditions.REPOSITORY_RESOLVED, True, Reason.REPOSITORY_FOUND, message)


def _pool(server: InferenceServer, pool: GPUNodePool | Unreadable | None) -> list[Finding]:
    reference = server.spec.node_pool_ref
    if reference is None:
        return []
    if (problem := _pool_problem(server, pool)) is not None:
        return [Finding(conditions.NODE_POOL_RESOLVED, False, problem.reason, problem.message)]
    return [Finding(conditions.NODE_POOL_RESOLVED, True, Reason.NODE_POOL_FOUND, f"GPUNodePool {reference.name}")]
