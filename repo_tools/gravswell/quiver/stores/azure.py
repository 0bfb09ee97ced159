"""``az://container``: containers of the Azure storage account that the environment names, as Azure's own tools do.

``AZURE_STORAGE_CONNECTION_STRING``; or ``AZURE_STORAGE_ACCOUNT`` (``AZURE_STORAGE_ACCOUNT_NAME``) with a key, a SAS
token, a service principal, a workload or managed identity.
"""

import os
from typing import TYPE_CHECKING

from obstore.store import AzureStore

from gravswell.errors import AccessDeniedError, InvalidInputError
from gravswell.quiver.stores.rust import RustObjects, client, retries

if TYPE_CHECKING:
    from obstore.store import AzureConfig

_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
_LOG_IN = (
    f"set {_CONNECTION}, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or an identity that "
    "has the role Storage Blob Data Contributor on the container"
)


def azure_objects(container: str) -> RustObjects:
    """The objects of ``az://container``."""
    url = f"az://{container}"
    config = _from_connection_string(os.environ.get(_CONNECTION, "")) or _from_variables()
    if "account_name" not in config:
        raise AccessDeniedError(f"{url}: the environment names no storage account; {_LOG_IN}")
    return RustObjects(
        AzureStore(container, config=config, client_options=client(config.get("endpoint")), retry_config=retries()),
        url=url,
        way_to_make=f"az storage container create --name {container} --account-name {config['account_name']}",
        way_to_log_in=_LOG_IN,
    )


def _from_variables() -> "AzureConfig":
    """What the library does not read itself: the names that Azure's command line has for the same things."""
    found: AzureConfig = {}
    name = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT")
    if name:
        found["account_name"] = name
    key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
    if key:
        found["account_key"] = key
    endpoint = os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT")
    if endpoint:
        found["endpoint"] = endpoint
    return found


def _from_connection_string(text: str) -> "AzureConfig | None":
    if not text:
        return None
    parts = dict(part.split("=", 1) for part in text.strip().strip(";").split(";") if "=" in part)
    name = parts.get("AccountName")
    if not name:
        raise InvalidInputError(f"{_CONNECTION} names no AccountName: copy it anew from the account's access keys")
    found: AzureConfig = {"account_name": name}
    if "AccountKey" in parts:
        found["account_key"] = parts["AccountKey"]
    if "SharedAccessSignature" in parts:
        found["sas_key"] = parts["SharedAccessSignature"]
    suffix = parts.get("EndpointSuffix", "core.windows.net")
    scheme = parts.get("DefaultEndpointsProtocol", "https")
    found["endpoint"] = parts.get("BlobEndpoint", f"{scheme}://{name}.blob.{suffix}").rstrip("/")
    return found
