"""What goes from the destination: just what the plan names, hours after it was made."""

from gravswell.errors import ConflictError, NotFoundError
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.removal import remove_version
from gravswell.quiver.repository import ModelRepository
from gravswell.quiver.transfer.planning import Step


def delete_agreed(repository: ModelRepository, destination: RepositoryReader, step: Step) -> str:
    """Delete what ``step`` names if it is still that; else leave it, and return why. Nothing if it is gone already.

    ConflictError for a version that an alias or a cluster has come to need since the plan was made.
    """
    if not step.number:
        return _delete_empty(repository, destination, step.name)
    try:
        info = destination.version(step.name, step.number)
        if (info.digest, info.size) != (step.digest, step.size):
            return "became another version since the plan was made"
        remove_version(destination, step.name, step.number)
    except NotFoundError:
        pass  # somebody was faster
    return ""


def _delete_empty(repository: ModelRepository, destination: RepositoryReader, name: str) -> str:
    try:
        repository.remove(name, only_empty=True)
    except NotFoundError:
        pass  # somebody was faster, or its last version was all that made it an entry
    except ConflictError:
        left = ", ".join(str(number) for number in destination.numbers(name))
        if not left:
            raise
        return f"holds what is not in the plan: {left}"
    return ""
