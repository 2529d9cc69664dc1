"""/livez, /readyz and /metrics.

Our own server, because kopf's probes have no readiness, and one that fails is retried inside the HTTP
request for a minute. Alive means that ticks end: a hung loop is restarted. It does *not* mean that the API
server or Prometheus answer: a restart would mend neither, and would lose what is known.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from longtail.control.clock import Clock
from longtail.control.metrics import OperatorMetrics


class Health:
    """State and server of the probes."""

    def __init__(
        self, *, clock: Clock, metrics: OperatorMetrics, patience_seconds: float, role: Callable[[], str]
    ) -> None:
        """Make the server.

        Args:
            clock: for how long ago a sign of life was.
            metrics: what /metrics shows.
            patience_seconds: without the end of a tick for so long, we are dead.
            role: what /readyz says beside "ok": a standby is as ready as the leader.
        """
        self._clock = clock
        self._metrics = metrics
        self._patience_seconds = patience_seconds
        self._role = role
        self._alive_at = clock.monotonic_seconds()
        self._ready = False
        self._runner: web.AppRunner | None = None
        self.port = 0

    def beat(self) -> None:
        """Say that the loop lives: while it waits for the first lists, and at the end of each tick."""
        self._alive_at = self._clock.monotonic_seconds()

    def set_ready(self, ready: bool) -> None:
        """Say whether decisions are being made."""
        self._ready = ready

    @property
    def alive(self) -> bool:
        """Whether the loop has shown a sign of life lately."""
        return self._clock.monotonic_seconds() - self._alive_at <= self._patience_seconds

    async def start(self, *, host: str, port: int) -> None:
        """Listen; ``port`` is known afterwards.

        Raises:
            OSError: the address cannot be had.
        """
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics_text),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the server."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(self.alive, "ok", "the loop has not ended a tick lately")

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(
            self._ready and self.alive, f"ok, {self._role()}", "the cluster has not been listed completely yet"
        )

    async def _metrics_text(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(well: bool, then: str, otherwise: str) -> web.Response:
    return web.Response(text=f"{then}\n") if well else web.Response(status=503, text=f"{otherwise}\n")
