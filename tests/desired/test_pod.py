"""The pods' own rules, beyond the golden files."""

from gravswell_operator.api import InferenceServer, ModelRepository
from gravswell_operator.desired.objects import Options
from gravswell_operator.plan import plan

OPTIONS = Options(image="registry.example/gravswell:1")


def made(options=OPTIONS, url="file:///srv/models", account=None, **spec):
    """The objects of one repository and one server."""
    other = {"serviceAccountName": account} if account else {}
    repository = ModelRepository.model_validate(
        {"metadata": {"name": "models", "namespace": "n"}, "spec": {"url": url, **other}}
    )
    server = InferenceServer.model_validate(
        {
            "metadata": {"name": "server", "namespace": "n"},
            "spec": {"repositoryRef": {"name": "models"}, "tag": "24.08", "replicas": 1, "models": "All", **spec},
        }
    )
    return [manifest for planned in plan([repository, server], options).objects for manifest in planned.children]


def test_agents_and_listers_pull_from_a_private_registry():
    options = Options(image="registry.example/gravswell:1", image_pull_secrets=("mirror", "other"))
    accounts = [manifest for manifest in made(options) if manifest["kind"] == "ServiceAccount"]
    assert [account["metadata"]["name"] for account in accounts] == ["models-lister", "server-agent"]
    for account in accounts:
        assert account["imagePullSecrets"] == [{"name": "mirror"}, {"name": "other"}]
    assert not any("imagePullSecrets" in manifest for manifest in made())


def test_an_account_of_the_users_is_left_to_the_user():
    options = Options(image="registry.example/gravswell:1", image_pull_secrets=("mirror",))
    assert not [manifest for manifest in made(options, account="mine") if manifest["kind"] == "ServiceAccount"]
