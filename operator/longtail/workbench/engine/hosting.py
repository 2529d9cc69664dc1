"""How simulated engines are served: an application in a process that ends when it is told to."""

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiohttp import web


def metrics_page(page: str) -> web.Response:
    """An answer to a scrape, in Prometheus' text format."""
    return web.Response(body=page.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def host(
    app: web.Application,
    *,
    address: str,
    port: int,
    jobs: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    max_seconds: float | None = None,
    handler_cancellation: bool = False,
) -> None:
    """Print one JSON line with the port, and serve until SIGTERM, SIGINT, the end of a job or ``max_seconds``.

    Args:
        app: what is served.
        address: to listen on.
        port: 0 picks a free one.
        jobs: work beside the requests. One that has ended has failed: the process ends too, rather than serve a world
            that stands still.
        max_seconds: None: no limit.
        handler_cancellation: cancel the handler of a client that hangs up.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=handler_cancellation)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    working = [asyncio.create_task(work()) for work in jobs]
    ended = asyncio.create_task(stop.wait())
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)  # noqa: T201 - the starter reads this line
    try:
        await asyncio.wait([*working, ended], timeout=max_seconds, return_when=asyncio.FIRST_COMPLETED)
        for job in working:
            if job.done():
                job.result()
    finally:
        for task in (*working, ended):
            task.cancel()
        await asyncio.gather(*working, ended, return_exceptions=True)
        await runner.cleanup()
