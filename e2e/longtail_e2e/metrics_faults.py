"""A Prometheus that misbehaves: a proxy on loopback in front of a real one, with a fault for each channel.

Each channel is a metrics source of its own (``URL/channel``), so pools with different faults live side by side
and the Prometheus behind them is one and healthy. Faults begin and end while everything runs.
"""

from __future__ import annotations

import json
import threading
import time
from email.utils import formatdate
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qsl

import requests

from longtail_e2e.ports import LOOPBACK

_AGE_PART: Final = "/sample_age"
"""How the operator tags the ages of samples in its answers."""


class MetricsFault(StrEnum):
    """What is wrong with a channel."""

    NONE = "none"
    GONE = "gone"
    """Connections are cut without an answer."""
    SLOW = "slow"
    """Answers come after ``delay_seconds``."""
    EMPTY = "empty"
    """Every answer is a success without a single series, as after a relabelling gone wrong."""
    PARTIAL = "partial"
    """Every second pod is missing, as when one of two scrapers is down."""
    STALE = "stale"
    """Numbers stay as they were when the fault began, and their ages grow: scraping has stopped."""
    AHEAD = "clock-ahead"
    """Its clock is ``skew_seconds`` ahead: what it shows as now was so a while ago."""
    BEHIND = "clock-behind"
    """Its clock is behind: it shows nothing younger than ``skew_seconds``."""


class FaultyMetrics:
    """The proxy. As a context manager it serves until the block ends."""

    def __init__(self, *, prometheus_url: str, delay_seconds: float = 10.0, skew_seconds: float = 60.0) -> None:
        self._prometheus_url = prometheus_url
        self.delay_seconds = delay_seconds
        self.skew_seconds = skew_seconds
        self._faults: dict[str, tuple[MetricsFault, float]] = {}
        self._stopping = threading.Event()
        self._server = _Server((LOOPBACK, 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, name="faulty metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, channel: str) -> str:
        """Address of a channel, as a metrics source wants it."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/{channel}"

    def set(self, channel: str, fault: MetricsFault) -> None:
        """Let a channel have this fault from now on."""
        self._faults[channel] = (fault, time.time())

    def answer(self, channel: str, path: str, form: dict[str, str]) -> tuple[int, bytes, float] | None:
        """Status, body and the clock to show; None cuts the connection."""
        fault, since = self._faults.get(channel, (MetricsFault.NONE, 0.0))
        asked_for = float(form.get("time", time.time()))
        if fault is MetricsFault.GONE:
            return None
        if fault is MetricsFault.SLOW and self._stopping.wait(self.delay_seconds):
            return None
        skew = {MetricsFault.AHEAD: self.skew_seconds, MetricsFault.BEHIND: -self.skew_seconds}.get(fault, 0.0)
        at = {MetricsFault.STALE: since, MetricsFault.AHEAD: asked_for - skew}.get(fault, asked_for)
        status, body = self._ask(path, form | {"time": f"{at:.3f}"})
        if fault is MetricsFault.EMPTY:
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}).encode()
        elif fault is MetricsFault.PARTIAL:
            body = _edited(body, _every_second_pod)
        elif fault is MetricsFault.STALE:
            body = _edited(body, lambda result: [_aged(sample, asked_for - since) for sample in result])
        elif fault is MetricsFault.BEHIND:
            body = _edited(body, lambda result: [_aged(sample, self.skew_seconds) for sample in result])
        return status, body, time.time() + skew

    def _ask(self, path: str, form: dict[str, str]) -> tuple[int, bytes]:
        with requests.Session() as session:
            session.trust_env = False
            found = session.post(f"{self._prometheus_url}{path}", data=form, timeout=10.0)
        return found.status_code, found.content


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Whoever asks hangs up when an answer takes too long: that is what some faults are for."""


def _edited(body: bytes, edit: Any) -> bytes:
    payload = json.loads(body)
    payload["data"]["result"] = edit(payload["data"]["result"])
    return json.dumps(payload).encode()


def _aged(sample: dict[str, Any], seconds: float) -> dict[str, Any]:
    if not sample["metric"].get("longtail_part", "").endswith(_AGE_PART):
        return sample
    at, value = sample["value"]
    return sample | {"value": [at, str(float(value) + seconds)]}


def _every_second_pod(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without every second pod of each pool, in the order of their names; a pool of one keeps its pod."""
    pools: dict[tuple[str, str], set[str]] = {}
    for sample in result:
        pools.setdefault(_pool(sample), set()).add(sample["metric"].get("pod", ""))
    kept = {(pool, pod) for pool, pods in pools.items() for pod in sorted(pods)[::2]}
    return [sample for sample in result if (_pool(sample), sample["metric"].get("pod", "")) in kept]


def _pool(sample: dict[str, Any]) -> tuple[str, str]:
    labels = sample["metric"]
    return labels.get("namespace", ""), labels.get("pod", "").rpartition("-")[0]


def _handler(proxy: FaultyMetrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            form = dict(parse_qsl(self.rfile.read(length).decode()))
            _, channel, path = self.path.split("?")[0].split("/", 2)
            try:
                answer = proxy.answer(channel, f"/{path}", form)
            except requests.RequestException:
                answer = None
            if answer is None:
                self.close_connection = True
                return
            status, body, clock = answer
            self.send_response_only(status)
            self.send_header("Date", formatdate(clock, usegmt=True))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
