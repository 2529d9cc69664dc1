"""A Prometheus client to lean on: bounded in time, threads and bytes, with one error tree."""

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import requests
import urllib3
from prometheus_api_client.exceptions import PrometheusApiClientException
from prometheus_api_client.prometheus_connect import PrometheusConnect

from longtail.errors import MetricsError, MetricsUnavailable
from longtail.signals.authentication import FileAuthentication
from longtail.signals.exchange import Answer, Exchange, pool
from longtail.signals.sources import MetricsSource


class PrometheusClient:
    """Queries one metrics source. The blocking library runs in threads of its own.

    kopf's threads and asyncio's default ones stay free, and a slow source cannot starve another: each
    client has its own ``concurrency`` threads, and a query that finds no free one within its timeout
    counts as unanswered.
    """

    def __init__(self, source: MetricsSource) -> None:
        self.source = source
        self._url = source.url.rstrip("/")
        self._authentication = FileAuthentication(source.authentication) if source.authentication else None
        self._adapter = pool(connections=source.concurrency)
        self._threads = ThreadPoolExecutor(source.concurrency, thread_name_prefix=f"metrics-{source.name}")

    async def query(self, promql: str, at_seconds: float) -> Answer:
        """Evaluate an expression at one time (Unix seconds). ``Answer.result`` is an instant vector.

        Raises:
            MetricsUnavailable: no usable answer within the timeout.
            QueryRejected: the source refused the query.
        """

        def ask(connection: PrometheusConnect, params: dict[str, Any]) -> Answer:
            answer: Answer = connection.custom_query(promql, params={**params, "time": f"{at_seconds:.3f}"})
            return answer

        return await self._ask(ask, "vector")

    async def query_range(self, promql: str, start_seconds: int, end_seconds: int, step_seconds: int) -> Answer:
        """Evaluate an expression at start, start + step, ... end (Unix seconds, inclusive), as a matrix.

        Prometheus refuses more than 11 000 steps at once: a longer history is asked for in pieces.

        Raises:
            MetricsUnavailable: no usable answer within the timeout.
            QueryRejected: the source refused the query.
        """
        start = datetime.fromtimestamp(start_seconds, tz=UTC)
        end = datetime.fromtimestamp(end_seconds, tz=UTC)

        def ask(connection: PrometheusConnect, params: dict[str, Any]) -> Answer:
            answer: Answer = connection.custom_query_range(promql, start, end, str(step_seconds), params=params)
            return answer

        return await self._ask(ask, "matrix")

    def close(self) -> None:
        """Stop taking queries and drop the connections. Threads end with the query they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._adapter.close()

    async def _ask(self, ask: Callable[[PrometheusConnect, dict[str, Any]], Answer], result_type: str) -> Answer:
        abandoned = threading.Event()
        try:
            async with asyncio.timeout(self.source.timeout_seconds):
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._send, ask, result_type, abandoned
                )
        except TimeoutError as error:
            raise MetricsUnavailable(self._says(f"no answer within {self.source.timeout_seconds:g} s")) from error
        finally:
            abandoned.set()

    def _send(
        self,
        ask: Callable[[PrometheusConnect, dict[str, Any]], Answer],
        result_type: str,
        abandoned: threading.Event,
    ) -> Answer:
        """Runs in a thread. One session a query keeps its answer to itself; the connections are shared."""
        source = self.source
        session = Exchange(
            adapter=self._adapter,
            authentication=self._authentication,
            result_type=result_type,
            abandoned=abandoned,
        )
        session.verify = str(source.ca_file) if source.ca_file else True
        if source.client_certificate:
            session.cert = (str(source.client_certificate.cert_file), str(source.client_certificate.key_file))
        # The library hands these to requests as they are, and its hints promise less than requests takes.
        handed_on: dict[str, Any] = {
            "auth": self._authentication,
            "timeout": (source.connect_timeout_seconds, source.timeout_seconds),
        }
        connection = PrometheusConnect(
            url=self._url, headers=dict(source.headers), session=session, method="POST", **handed_on
        )
        session.connect(self._url)
        try:
            # In milliseconds: Prometheus's durations have no fractions, and it refuses a query with "2.5s".
            return ask(connection, {"timeout": f"{math.ceil(1000 * source.timeout_seconds)}ms"})
        except MetricsError as error:
            raise type(error)(self._says(str(error))) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise MetricsUnavailable(self._says(_first_cause(error))) from error
        except PrometheusApiClientException as error:
            raise MetricsUnavailable(self._says(str(error)[:200])) from error

    def _says(self, what: str) -> str:
        return f"metrics source {self.source.name!r} ({self._url}): {what}"


def _first_cause(error: BaseException) -> str:
    """The innermost reason: urllib3 and requests wrap "Connection refused" three times."""
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return f"{type(seen).__name__}: {seen}"
