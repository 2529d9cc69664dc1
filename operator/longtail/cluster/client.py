"""The one door to the Kubernetes API: paths in, plain JSON out, every failure in longtail's own error tree.

Built on ``kubernetes.aio.client.ApiClient`` for what is hard to get right (kubeconfig, exec plugins, service
account tokens, TLS), and on plain paths for what is not. Typed models were rejected: a target may be of any
kind, ``/scale`` and ``/status`` look the same for all of them, and an answer that nobody reads need not be
parsed (with models a status write costs 2 ms of CPU against a real API server).

Every request carries its content type and its timeouts: the library's own defaults are 5 minutes and, for
patches, a content type that depends on the class that is called.

Writes are fenced (`KubernetesApi.write_seconds`): the last look at whether we still lead is taken here, right
before the request leaves, and nobody waits for a write longer than we may.
"""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from longtail.errors import (
    ClusterError,
    ClusterUnavailable,
    Conflict,
    NotFound,
    NotLeading,
    Refused,
    SettingsError,
)

FIELD_MANAGER: Final = "longtail"

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

_CONNECT_SECONDS: Final = 5.0
_TOTAL_SECONDS: Final = 10.0
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the API server is and how to show who we are, for clients that are not ours (kopf)."""

    server: str
    ca_file: str | None
    verify_tls: bool
    scheme: str | None
    token: str | None
    certificate_file: str | None
    private_key_file: str | None
    proxy_url: str | None


class KubernetesApi:
    """Requests to one API server. Use ``connect`` to make one, and close it.

    Not bound to a task, but to the event loop of its first request.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        reload: Callable[[Configuration], Any] | None = None,
        on_response: Callable[[str, int], None] | None = None,
    ) -> None:
        """Wrap a loaded configuration.

        Args:
            configuration: server, TLS and credentials.
            reload: coroutine function that reads the credentials again; called after a 401.
            on_response: told method and status code of every answer (0: none came), for metrics.
        """
        # Proxies are those of the kubeconfig, never of the environment: a proxy meant for the internet
        # must not see service account tokens. Kopf does the same.
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration
        self._client = ApiClient(configuration=configuration)
        self._client.user_agent = "longtail"
        self._reload = reload
        self._reloading = asyncio.Lock()
        self._generation = 0
        self.on_response = on_response
        self.write_seconds: Callable[[], float] | None = None
        """Asked before each write how long it may take, 0 or less: it may not be sent. None: no limit."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]  # the library leaves it untyped

    async def credentials(self) -> Credentials:
        """Read the credentials again and return them."""
        await self._read_credentials_again(seen=self._generation)
        configuration = self._configuration
        header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        scheme, _, token = (header or "").strip().partition(" ")
        return Credentials(
            server=configuration.host,
            ca_file=configuration.ssl_ca_cert,
            verify_tls=configuration.verify_ssl,
            scheme=scheme or None,
            token=token.strip() or None,
            certificate_file=configuration.cert_file,
            private_key_file=configuration.key_file,
            proxy_url=configuration.proxy,
        )

    async def get(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        timeout_seconds: float = _TOTAL_SECONDS,
    ) -> dict[str, Any]:
        """GET one object or list.

        Raises:
            ClusterError: see ``longtail.errors``; every method of this class raises the same tree.
        """
        answer = await self._request("GET", path, query=query, accept=accept, timeout_seconds=timeout_seconds)
        return _json_object(answer, path=path)

    async def pages(
        self, path: str, *, query: Mapping[str, str] | None = None, accept: str = METADATA_LIST
    ) -> AsyncIterator[dict[str, Any]]:
        """GET a list in chunks of 500, so that neither side ever holds all of it."""
        parameters = {**(query or {}), "limit": str(_PAGE)}
        while True:
            page = await self.get(path, query=parameters, accept=accept)
            yield page
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            parameters["continue"] = token

    async def post(
        self, path: str, *, body: Mapping[str, Any], fenced: bool = True, timeout_seconds: float = _TOTAL_SECONDS
    ) -> dict[str, Any]:
        """POST an object and return it as it was made.

        Raises:
            NotLeading: ``fenced``, and another operator may be writing by now; nothing was sent.
        """
        answer = await self._request(
            "POST",
            path,
            body=body,
            query={"fieldManager": FIELD_MANAGER},
            fenced=fenced,
            timeout_seconds=timeout_seconds,
        )
        return _json_object(answer, path=path)

    async def merge_patch(
        self, path: str, *, body: Mapping[str, Any], fenced: bool = True, timeout_seconds: float = _TOTAL_SECONDS
    ) -> dict[str, Any]:
        """PATCH with a JSON merge patch; a resourceVersion in the body is a precondition (else 409).

        Raises:
            NotLeading: as ``post``.
        """
        answer = await self._request(
            "PATCH",
            path,
            body=body,
            content_type=MERGE_PATCH,
            query={"fieldManager": FIELD_MANAGER},
            fenced=fenced,
            timeout_seconds=timeout_seconds,
        )
        return _json_object(answer, path=path)

    async def strategic_patch(self, path: str, *, body: Mapping[str, Any]) -> dict[str, Any]:
        """PATCH a built-in kind so that lists are merged by their keys, conditions by type.

        Raises:
            NotLeading: as ``post``.
        """
        answer = await self._request(
            "PATCH", path, body=body, content_type=STRATEGIC_PATCH, query={"fieldManager": FIELD_MANAGER}, fenced=True
        )
        return _json_object(answer, path=path)

    async def apply(self, path: str, *, body: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Server-side apply as our field manager, taking over fields that others hold; return the object.

        Raises:
            NotLeading: as ``post``.
        """
        answer = await self._request(
            "PATCH",
            path,
            body=body,
            content_type=APPLY_PATCH,
            query={"fieldManager": FIELD_MANAGER, "force": "true"} | ({"dryRun": "All"} if dry_run else {}),
            fenced=True,
        )
        return _json_object(answer, path=path)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        fenced: bool = False,
        timeout_seconds: float = _TOTAL_SECONDS,
    ) -> bytes:
        generation = self._generation
        send = functools.partial(
            self._send,
            method,
            path,
            query=query,
            body=body,
            headers={"Accept": accept, "Content-Type": content_type},
            fenced=fenced,
            timeout_seconds=timeout_seconds,
        )
        status, answer = await send()
        if status == 401 and self._reload is not None:
            # Tokens rotate (service accounts hourly, exec plugins as they please): read again, try once more.
            await self._read_credentials_again(seen=generation)
            status, answer = await send()
        if 200 <= status < 300:
            return answer
        raise _error(status, method=method, path=path, answer=answer)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        fenced: bool,
        timeout_seconds: float,
    ) -> tuple[int, bytes]:
        status, sent, seconds = 0, True, timeout_seconds
        try:
            prepared = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=dict(headers),
                body=body,
                auth_settings=["BearerToken"],
            )
            # After the last await before the request: on a pooled connection it leaves without another.
            seconds = self._seconds(timeout_seconds, fenced=fenced)
            if seconds <= 0:
                sent = False
                raise NotLeading(f"{method} {path}: not sent, another operator may be writing by now")
            timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
            response = await self._client.call_api(*prepared, _request_timeout=timeout)
            answer = await response.read()  # type: ignore[no-untyped-call]  # as above
            status = response.status
        except TimeoutError as slow:
            raise ClusterUnavailable(f"{method} {path}: no answer within {seconds:.3g} s") from slow
        except (aiohttp.ClientError, OSError) as broken:
            raise ClusterUnavailable(f"{method} {path}: {broken}") from broken
        finally:
            if sent and self.on_response is not None:
                self.on_response(method, status)
        return status, answer

    def _seconds(self, timeout_seconds: float, *, fenced: bool) -> float:
        """How long to wait for an answer; 0 or less: the request may not be sent."""
        if not fenced or self.write_seconds is None:
            return timeout_seconds
        return min(timeout_seconds, self.write_seconds())

    async def _read_credentials_again(self, *, seen: int) -> None:
        if self._reload is None:
            return
        async with self._reloading:
            if seen != self._generation:
                return  # another request has just done it
            try:
                await self._reload(self._configuration)
            except (ConfigException, OSError) as unreadable:
                raise ClusterUnavailable(f"credentials cannot be read: {unreadable}") from unreadable
            self._generation += 1


async def connect(*, kubeconfig: str | None = None, context: str | None = None) -> KubernetesApi:
    """Connect with a kubeconfig, or, given nothing, with the pod's service account where there is one.

    Args:
        kubeconfig: path of a kubeconfig; None: the pod's service account, else $KUBECONFIG or ~/.kube/config.
        context: context of the kubeconfig; None: its current one.

    Raises:
        SettingsError: no usable credentials; the message names the file.
    """
    configuration = Configuration()
    if kubeconfig is None and context is None:
        try:
            await _reload_in_cluster(configuration)
        except ConfigException:
            pass
        else:
            return KubernetesApi(configuration=configuration, reload=_reload_in_cluster)

    if kubeconfig is not None:
        _require_file(kubeconfig)

    async def reload(target: Configuration) -> None:
        await load_kube_config(  # type: ignore[no-untyped-call]  # as above
            config_file=kubeconfig, context=context, client_configuration=target, persist_config=False
        )

    try:
        await reload(configuration)
    except (ConfigException, OSError, yaml.YAMLError, TypeError) as unusable:
        raise SettingsError(f"kubeconfig: {kubeconfig or 'default location'}: {unusable}") from unusable
    return KubernetesApi(configuration=configuration, reload=reload)


def _require_file(kubeconfig: str) -> None:
    # The library takes a missing file for an empty one and complains about its content.
    if not Path(kubeconfig).is_file():
        raise SettingsError(f"kubeconfig: {kubeconfig}: there is no such file")


async def _reload_in_cluster(configuration: Configuration) -> None:
    load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # as above


def _json_object(answer: bytes, *, path: str) -> dict[str, Any]:
    try:
        parsed = json.loads(answer)
    except ValueError as malformed:
        raise ClusterUnavailable(f"{path}: the answer is not JSON: {answer[:80]!r}") from malformed
    if not isinstance(parsed, dict):
        raise ClusterUnavailable(f"{path}: the answer is not a JSON object: {answer[:80]!r}")
    return parsed


def _error(status: int, *, method: str, path: str, answer: bytes) -> ClusterError:
    """Translate a status code; the message is the server's own where it sent one."""
    try:
        reason = json.loads(answer).get("message") or ""
    except (ValueError, AttributeError):
        reason = answer[:200].decode(errors="replace")
    message = f"{method} {path}: {status} {reason}".rstrip()
    if status == 404:
        return NotFound(message)
    if status == 409:
        return Conflict(message)
    if status == 429 or status >= 500:
        return ClusterUnavailable(message)
    return Refused(message)
