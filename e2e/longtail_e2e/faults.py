"""An API server that misbehaves on demand: a proxy on loopback between one client and the real one.

Plain HTTP in, TLS out; bearer tokens pass through, so that the client has its own rights. What is not told to fail
passes, watch streams line by line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from longtail_e2e.ports import LOOPBACK

_HOP_BY_HOP: Final = {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}
_START_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request wants."""

    method: str
    path: str
    watch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the requests that it concerns: wait first, then answer so, or not at all."""

    concerns: Callable[[Asked], bool] = lambda _: True
    delay_seconds: float = 0.0
    status: int | None = None
    """Answer with this instead of asking the API server."""
    retry_after_seconds: int | None = None
    drop: bool = False
    """Cut the connection."""
    gone: bool = False
    """Begin a watch stream and end it with an ERROR event of code 410."""


class FaultyApi:
    """The proxy, in a thread of its own; as a context manager it serves until the block ends."""

    def __init__(self, *, api_url: str, certificate_authority: Path, port: int) -> None:
        self._api_url = api_url
        self._context = ssl.create_default_context(cafile=certificate_authority)
        self._port = port
        self._fault: Fault | None = None
        self._struck: Counter[tuple[str, str]] = Counter()
        self._streams: list[web.Request] = []
        self._loop = asyncio.new_event_loop()
        self._serving = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), name="faulty api")

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{LOOPBACK}:{self._port}"

    def kubeconfig(self, original: Path) -> Path:
        """Write a copy of a kubeconfig that leads here; return its path."""
        content: dict[str, Any] = yaml.safe_load(original.read_text())
        for cluster in content["clusters"]:
            cluster["cluster"] = {"server": self.url}
        path = original.with_suffix(".faulty")
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(content))
        return path

    @contextlib.contextmanager
    def fault(self, fault: Fault) -> Any:
        """Let requests fail until the block ends."""
        self._struck.clear()
        self._fault = fault
        try:
            yield
        finally:
            self._fault = None

    def cut_streams(self) -> int:
        """Cut every watch stream that is open, in the middle; return how many there were."""
        return asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(_START_SECONDS)

    def struck(self, method: str, part: str = "") -> int:
        """How many requests of the method, whose path has this part, the last fault concerned."""
        return sum(count for (verb, path), count in self._struck.items() if verb == method and part in path)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._serving.wait(_START_SECONDS):
            raise TimeoutError(f"the proxy does not listen on {self.url}")
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        async with aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=False) as session:
            self._session = session
            await web.TCPSite(runner, LOOPBACK, self._port).start()
            self._serving.set()
            await self._stop.wait()
            await self._cut()
            await runner.cleanup()

    async def _cut(self) -> int:
        streams = self._streams
        for request in streams:
            _abort(request)
        return len(streams)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(method=request.method, path=request.path, watch=request.query.get("watch") == "true")
        fault = self._fault
        if fault is not None and fault.concerns(asked):
            self._struck[asked.method, asked.path] += 1
            await asyncio.sleep(fault.delay_seconds)
            if fault.drop:
                _abort(request)
            elif fault.gone:
                return await _gone(request)
            elif fault.status is not None:
                return _failure(fault)
        try:
            return await self._pass_on(request, asked=asked)
        except (aiohttp.ClientError, OSError):
            # The API server is away, or it or the client went in the middle of an answer.
            _abort(request)
            return web.Response(status=502)

    async def _pass_on(self, request: web.Request, *, asked: Asked) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        timeout = aiohttp.ClientTimeout(total=None)
        body = await request.read()
        async with self._session.request(
            request.method,
            URL(f"{self._api_url}{request.raw_path}", encoded=True),
            headers=headers,
            data=body or None,
            timeout=timeout,
        ) as answer:
            passed = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in _HOP_BY_HOP - {"content-encoding"}
            }
            response = web.StreamResponse(status=answer.status, headers=passed)
            if asked.watch:
                self._streams.append(request)
            try:
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            finally:
                self._streams = [other for other in self._streams if other is not request]
            return response


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _failure(fault: Fault) -> web.Response:
    assert fault.status is not None
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "told to fail", "code": fault.status}
    retry = {} if fault.retry_after_seconds is None else {"Retry-After": str(fault.retry_after_seconds)}
    return web.json_response(body, status=fault.status, headers=retry)


async def _gone(request: web.Request) -> web.StreamResponse:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: told so"}
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
    await response.write_eof()
    return response
