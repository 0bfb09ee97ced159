"""A pod's volumes as folders: made before its containers start, kept up to date while they run."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gravswell.errors import GravswellError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.kube.client import Client
from gravswell.kube.resources import (
    CONFIG_MAP,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    SERVICE_ACCOUNT,
    Resource,
    Selection,
)
from gravswell.kube.watch import DELETED, Listed
from gravswell_operator.devcluster.node.environment import Sources, data_of, field_of, resource_of
from gravswell_operator.devcluster.node.files import Projected, project
from gravswell_operator.devcluster.node.settling import PAUSE_SECONDS, is_settling, settled

log = logging.getLogger(__name__)

Document = dict[str, Any]

_RETRY_SECONDS = 2.0
_TOKEN_REFRESH = 0.8  # of a token's life; as a kubelet does


class _NotReadYetError(UnavailableError):
    """The first answer about an object is under way: nothing to tell anybody."""


class Volumes:
    """The volumes of one pod below ``folder``.

    Args:
        current: returns the pod as it is now; labels and annotations of downward volumes are read from it.
        complain: told, once for each different message, why a volume cannot be set up yet.
    """

    def __init__(
        self, client: Client, folder: Path, current: Callable[[], Document], complain: Callable[[str], None]
    ) -> None:
        self._client = client
        self._folder = folder
        self._current = current
        self._complain = complain
        self._said = ""
        self._paths: dict[str, Path] = {}
        self._objects: dict[tuple[Resource, str], Document | None] = {}
        self._tokens: dict[tuple[str, str], tuple[bytes, float]] = {}
        self._followers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    async def set_up(self) -> None:
        """Make every volume; waits, telling why, for as long as something that it needs is missing."""
        pod = self._current()
        for resource, name in _objects(pod):
            self._followers.append(asyncio.create_task(self._follow(resource, name)))
        while True:
            try:
                await self._write_all()
            except _NotReadYetError:
                await self._change(_RETRY_SECONDS)
            except (GravswellError, OSError) as error:
                if str(error) != self._said:
                    self._said = str(error)
                    self._complain(self._said)
                await self._change(_RETRY_SECONDS)
            else:
                self._followers.append(asyncio.create_task(self._keep()))
                return

    def touch(self) -> None:
        """Say that the pod's metadata may have changed."""
        self._changed.set()

    async def close(self) -> None:
        """Stop following; the folders stay."""
        for task in self._followers:
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)

    def mounts(self, container: Document, expand: Callable[[str], str]) -> dict[str, Path]:
        """Return mount path → folder or file for ``container``; ``expand`` resolves ``subPathExpr``."""
        result = {}
        for mount in container.get("volumeMounts") or ():
            path = self._paths[mount["name"]]
            below = expand(mount["subPathExpr"]) if "subPathExpr" in mount else mount.get("subPath", "")
            if below:
                if ".." in Path(below).parts or below.startswith("/"):
                    raise InvalidInputError(f"subPath {below!r} of mount {mount['mountPath']} leaves its volume")
                path /= below
                if not path.exists():
                    path.mkdir(parents=True)
            result[mount["mountPath"]] = path
        return result

    async def _keep(self) -> None:
        while True:
            await self._change(self._until_refresh())
            try:
                await self._write_all()
            except (
                GravswellError,
                OSError,
            ) as error:  # what is mounted stays as it is, and the next change tries again
                log.warning("volumes of %s: %s", self._current()["metadata"]["name"], error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()

    async def _change(self, at_most: float | None) -> None:
        try:
            async with asyncio.timeout(at_most):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def _until_refresh(self) -> float | None:
        if not self._tokens:
            return None
        return max(1.0, min(due for _, due in self._tokens.values()) - asyncio.get_running_loop().time())

    async def _follow(self, resource: Resource, name: str) -> None:
        wanted = Selection(resource, self._current()["metadata"]["namespace"], name=name)
        while True:
            try:
                async for seen in self._client.follow(wanted):
                    if isinstance(seen, Listed):
                        found = next(iter(seen.items), None)
                    else:
                        found = None if seen.type == DELETED else seen.object
                    self._objects[resource, name] = found
                    self._changed.set()
            except GravswellError as error:
                if is_settling(error):
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                log.info("following %s: %s", wanted, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _write_all(self) -> None:
        pod = self._current()
        for volume in pod["spec"].get("volumes") or ():
            self._paths[volume["name"]] = await self._write(volume, pod)

    async def _write(self, volume: Document, pod: Document) -> Path:
        folder = self._folder / str(volume["name"])
        if "emptyDir" in volume:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        if "hostPath" in volume:
            return _existing(volume["name"], Path(volume["hostPath"]["path"]))
        if "persistentVolumeClaim" in volume:
            return await self._claim(volume["name"], volume["persistentVolumeClaim"]["claimName"], pod)
        for kind in ("configMap", "secret", "downwardAPI", "projected"):
            if kind in volume:
                source: Document = volume[kind]
                parts: Iterable[Document] = source.get("sources") or () if kind == "projected" else ({kind: source},)
                files: dict[str, Projected] = {}
                for part in parts:
                    files |= await self._files(part, source.get("defaultMode", 0o644), pod)
                project(folder, files)
                return folder
        kind = next((key for key in volume if key != "name"), "of no kind")
        raise InvalidInputError(f"volume {volume['name']!r} is a {kind}, which the local node does not offer")

    async def _files(self, part: Document, mode: int, pod: Document) -> dict[str, Projected]:
        if "serviceAccountToken" in part:
            source = part["serviceAccountToken"]
            return {source["path"]: Projected(await self._token(source, pod), mode)}
        if "downwardAPI" in part:
            return {
                item["path"]: Projected(_downward(item, pod), item.get("mode", mode))
                for item in part["downwardAPI"].get("items") or ()
            }
        for kind, resource, name in (("configMap", CONFIG_MAP, "name"), ("secret", SECRET, None)):
            if kind in part:
                source = part[kind]
                named = source[name] if name else source.get("secretName") or source["name"]
                return self._keys(resource, named, source, mode)
        raise InvalidInputError(f"a projection from {', '.join(part)} is not offered by the local node")

    def _keys(self, resource: Resource, name: str, source: Document, mode: int) -> dict[str, Projected]:
        label = f'{resource.kind.lower()} "{name}"'
        if (resource, name) not in self._objects:
            raise _NotReadYetError(f"{label} was not read yet")
        found = self._objects[resource, name]
        if found is None:
            if source.get("optional"):
                return {}
            raise NotFoundError(f"{label} not found")
        content = data_of(found)
        items = source.get("items")
        if not items:
            return {key: Projected(value, mode) for key, value in content.items()}
        files = {}
        for item in items:
            if item["key"] in content:
                files[item["path"]] = Projected(content[item["key"]], item.get("mode", mode))
            elif not source.get("optional"):
                raise NotFoundError(f"{label} has no key {item['key']!r}")
        return files

    async def _token(self, source: Document, pod: Document) -> bytes:
        audience, path = source.get("audience", ""), source["path"]
        held = self._tokens.get((audience, path))
        loop = asyncio.get_running_loop()
        if held is not None and loop.time() < held[1]:
            return held[0]
        metadata = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec: Document = {"expirationSeconds": source.get("expirationSeconds", 3600), "boundObjectRef": reference}
        spec["audiences"] = [audience] if audience else []
        answer = await settled(
            lambda: self._client.create_under(
                SERVICE_ACCOUNT,
                metadata["namespace"],
                account,
                "token",
                {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
            )
        )
        token = str(answer["status"]["token"]).encode()
        expires = datetime.fromisoformat(answer["status"]["expirationTimestamp"])
        life = (expires - datetime.now(UTC)).total_seconds()
        self._tokens[audience, path] = (token, loop.time() + life * _TOKEN_REFRESH)
        return token

    async def _claim(self, volume: str, claim: str, pod: Document) -> Path:
        namespace = pod["metadata"]["namespace"]
        found = await settled(lambda: self._client.get(PERSISTENT_VOLUME_CLAIM, namespace, claim))
        bound = found["spec"].get("volumeName")
        if not bound:
            raise UnavailableError(f"persistentvolumeclaim {claim!r} is not bound yet")
        spec = (await settled(lambda: self._client.get(PERSISTENT_VOLUME, None, bound)))["spec"]
        source: Mapping[str, str] | None = spec.get("hostPath") or spec.get("local")
        if source is None:
            raise InvalidInputError(
                f"persistentvolumeclaim {claim!r} is bound to {bound!r}, which is neither hostPath nor local: "
                "the local node has no drivers; use a file:// repository or a hostPath volume"
            )
        return _existing(volume, Path(source["path"]))


def _existing(volume: str, path: Path) -> Path:
    if not path.exists():
        raise NotFoundError(f"volume {volume!r}: {path} does not exist on this machine")
    return path


def _downward(item: Document, pod: Document) -> bytes:
    if "fieldRef" in item:
        return field_of(item["fieldRef"]["fieldPath"], pod).encode()
    return resource_of(item["resourceFieldRef"], Sources(pod=pod, container={})).encode()


def _objects(pod: Document) -> set[tuple[Resource, str]]:
    """Return the ConfigMaps and Secrets that the pod's volumes show, by kind and name."""
    found = set()
    for volume in pod["spec"].get("volumes") or ():
        parts = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for part in parts:
            if "configMap" in part:
                found.add((CONFIG_MAP, part["configMap"]["name"]))
            if "secret" in part:
                found.add((SECRET, part["secret"].get("secretName") or part["secret"]["name"]))
    return found
