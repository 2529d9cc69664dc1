"""One question to a metrics source and its answer, checked.

The library (0.7.2) puts a POST query into the URL, follows redirects with the credentials, reads bodies
without bound, and drops warnings and result types. It does all its I/O through the session it is given,
so each of these is repaired there, in one method.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter

from longtail.errors import MetricsUnavailable, QueryRejected
from longtail.signals.authentication import Reloadable

_MAX_BYTES: Final = 128 * 1024 * 1024
"""Largest body read: about 900 000 series at 140 bytes each. A fleet's histograms need a tenth."""
_CHUNK_BYTES: Final = 64 * 1024
_TRY_AGAIN: Final = frozenset({408, 429})
"""Statuses of the 4xx class that are about now, not about the query."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the source answered: the ``result`` array as decoded JSON, and its warnings."""

    result: list[Any]
    warnings: tuple[str, ...] = ()
    """Not empty when a part of the data may be missing (Thanos and Mimir answer so when a store is down)."""
    answered_at: float | None = None
    """The source's own clock as it answered (the Date header, whole Unix seconds); None where it does not say."""


class Exchange(requests.Session):
    """A session for one query. The connections are in the adapter, which all exchanges share."""

    def __init__(
        self,
        *,
        adapter: HTTPAdapter,
        authentication: Reloadable | None,
        result_type: str,
        abandoned: threading.Event,
    ) -> None:
        super().__init__()
        self.trust_env = False  # no proxy, no .netrc and no CA from somebody's shell
        self._shared = adapter
        self._authentication = authentication
        self._result_type = result_type
        self._abandoned = abandoned

    def connect(self, url: str) -> None:
        """Put the shared adapter in front. The library mounts one of its own, so call this after it."""
        self.mount(url, self._shared)

    def close(self) -> None:
        """Leave the shared connections open."""

    def request(  # type: ignore[override]  # the library calls with these keywords only
        self, method: str, url: str, *, params: Mapping[str, Any], **options: Any
    ) -> requests.Response:
        """Send the query in the body, and hand back an answer that was checked.

        Raises:
            MetricsUnavailable: no usable answer.
            QueryRejected: a 4xx answer.
            requests.RequestException: the connection failed; the client translates.
        """
        send = {**options, "data": dict(params), "allow_redirects": False, "stream": True}
        response = super().request(method, url, **send)
        if response.status_code == 401 and self._authentication is not None:
            response.close()
            self._authentication.reload()
            response = super().request(method, url, **send)
        with response:
            body = self._read(response)
        return _Checked(_check(response, body, self._result_type))

    def _read(self, response: requests.Response) -> bytes:
        """The body, while somebody waits for it: a dripping server must not hold a thread for ever."""
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            body += chunk
            if self._abandoned.is_set():
                raise MetricsUnavailable("timed out while the answer was still arriving")
            if len(body) > _MAX_BYTES:
                raise MetricsUnavailable(f"answer larger than {_MAX_BYTES} bytes")
        return bytes(body)


class _Checked(requests.Response):
    """The answer in the shape that the library unpacks: ``response.json()["data"]["result"]``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.status_code = 200
        self._answer = answer

    def json(self, **_: Any) -> dict[str, dict[str, Answer]]:
        return {"data": {"result": self._answer}}


def pool(*, connections: int) -> HTTPAdapter:
    """Connections to share. One retry, for connecting only: the next tick asks again anyway."""
    retry = urllib3.Retry(total=None, connect=1, read=0, redirect=0, status=0, other=0, backoff_factor=0.1)
    return HTTPAdapter(pool_connections=1, pool_maxsize=connections, max_retries=retry)


def _check(response: requests.Response, body: bytes, result_type: str) -> Answer:
    status = response.status_code
    if 300 <= status < 400:
        target = response.headers.get("Location", "nowhere")
        raise MetricsUnavailable(f"redirected ({status}) to {target}: the source's url must be the final one")
    payload = _payload(body)
    if status >= 500 or status in _TRY_AGAIN:
        raise MetricsUnavailable(f"HTTP {status}: {_reason(payload, body)}")
    if status >= 400:
        raise QueryRejected(f"HTTP {status}: {_reason(payload, body)}")
    if payload is None:
        media = response.headers.get("Content-Type", "no content type")
        raise MetricsUnavailable(f"HTTP {status} with {media} instead of JSON: {_excerpt(body)}")
    if payload.get("status") != "success":
        raise MetricsUnavailable(f"HTTP {status} without success: {_reason(payload, body)}")
    data = payload.get("data")
    kind = data.get("resultType") if isinstance(data, dict) else None
    result = data.get("result") if isinstance(data, dict) else None
    if kind != result_type or not isinstance(result, list):
        raise MetricsUnavailable(f"answered a {kind}, not the {result_type} that was asked for")
    warnings = payload.get("warnings") or ()
    return Answer(
        result=result,
        warnings=tuple(str(warning) for warning in warnings),
        answered_at=_date(response.headers.get("Date")),
    )


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def _payload(body: bytes) -> dict[str, Any] | None:
    try:
        payload = json.loads(body)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def _reason(payload: dict[str, Any] | None, body: bytes) -> str:
    if payload is None:
        return _excerpt(body)
    return f"{payload.get('errorType', 'error')}: {str(payload.get('error', ''))[:200]}"


def _excerpt(body: bytes) -> str:
    return repr(" ".join(body[:120].decode("utf-8", errors="replace").split()))
