"""An external processor for Envoy: during a shortage chat requests think no longer than longtail publishes.

``python longtail_ext_proc.py`` serves Envoy's gRPC service ``ext_proc``, and the health check that Envoy and Kubernetes
know. Settings are environment variables, all in ``Settings.read``; docs/envoy.md explains them.

Envoy sends the headers of each request. Only of a chat request, and only while something is limited, it is told to send
the body too, and the headers of the answer. Bodies of answers are never seen, but for the text of a 400 or 422, so
that an engine that takes no budgets is left alone: streams stay streams.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as service
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import Counter, start_http_server

from longtail_requests import Change, Limiter, Settings

OUTCOMES = Counter("longtail_effort_requests_total", "Requests by what longtail's effort did.", ["model", "outcome"])


def _mode(**parts: Any) -> Any:
    """What Envoy is to send of the rest: nothing but the parts that are named."""
    silent = {"request_trailer_mode": ProcessingMode.SKIP, "response_trailer_mode": ProcessingMode.SKIP}
    return ProcessingMode(**silent | {"response_header_mode": ProcessingMode.SKIP} | parts)


# Not BUFFERED, which would keep content-length: a body above Envoy's buffer, which may be small, is refused then (413)
# or hangs, as seen in 1.40; in part it goes on as it came. The length must go: when it changes, Envoy answers 500.
_BODY_AND_STATUS = _mode(request_body_mode=ProcessingMode.BUFFERED_PARTIAL, response_header_mode=ProcessingMode.SEND)
_ERROR_TEXT = _mode(response_body_mode=ProcessingMode.BUFFERED_PARTIAL)


class Exchange:
    """One HTTP request and its answer, as Envoy sends their parts."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._headers: dict[str, str] = {}
        self._change: Change | None = None

    def reply(self, message: Any) -> Any:
        """What Envoy is to do with a part; the default is nothing."""
        kind = message.WhichOneof("request")
        unchanged = pb.ProcessingResponse()
        getattr(unchanged, kind).SetInParent()
        try:
            return getattr(self, f"_{kind}")(getattr(message, kind)) or unchanged
        except Exception as error:  # noqa: BLE001 - fail open, whatever it is
            self._limiter.failed(error)
            return unchanged

    def _request_headers(self, part: Any) -> Any:
        self._headers = _read(part)
        if part.end_of_stream or not self._limiter.wants(self._headers):
            return None
        common = pb.CommonResponse(header_mutation=pb.HeaderMutation(remove_headers=["content-length"]))
        return pb.ProcessingResponse(
            request_headers=pb.HeadersResponse(response=common), mode_override=_BODY_AND_STATUS
        )

    def _request_body(self, part: Any) -> Any:
        self._change = self._limiter.change(self._headers, part.body, whole=part.end_of_stream)
        if self._change is None:
            return None
        common = pb.CommonResponse(body_mutation=pb.BodyMutation(body=self._change.body))
        return pb.ProcessingResponse(request_body=pb.BodyResponse(response=common))

    def _response_headers(self, part: Any) -> Any:
        if self._change is None:
            return None
        # Whoever was given less can see it.
        common = pb.CommonResponse(header_mutation=pb.HeaderMutation(set_headers=[_told(self._change.level)]))
        answer = pb.ProcessingResponse(response_headers=pb.HeadersResponse(response=common))
        if self._limiter.suspect(self._change, _read(part).get(":status", "")):
            answer.mode_override.CopyFrom(_ERROR_TEXT)
        return answer

    def _response_body(self, part: Any) -> None:
        if self._change is not None:
            self._limiter.refused(self._change, part.body)


def _read(part: Any) -> dict[str, str]:
    return {each.key: (each.raw_value or each.value.encode()).decode("latin-1") for each in part.headers.headers}


def _told(level: str) -> Any:
    header = HeaderValue(key="x-longtail-effort", raw_value=level.encode())
    return HeaderValueOption(header=header, append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)


class Processor(service.ExternalProcessorServicer):  # type: ignore[misc]  # gRPC is not where this is checked
    """Envoy's service."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def Process(self, stream: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:  # noqa: N802 - Envoy's name
        """One HTTP request."""
        exchange = Exchange(self._limiter)
        async for message in stream:
            yield exchange.reply(message)


async def serve(settings: Settings, *, stop: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> None:
    """Serve until one of the signals."""
    stopped = asyncio.Event()
    for number in stop:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    if settings.metrics_port:
        start_http_server(settings.metrics_port)
    server = grpc.aio.server()
    limiter = Limiter(settings, count=lambda model, outcome: OUTCOMES.labels(model, outcome).inc())
    service.add_ExternalProcessorServicer_to_server(Processor(limiter), server)
    checks = health.aio.HealthServicer()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    server.add_insecure_port(settings.listen)
    await server.start()
    logging.getLogger("longtail_ext_proc").info("serving on %s", settings.listen)
    await stopped.wait()
    # What waits for an engine's first token need not be waited for: without us the answer passes as it is.
    await server.stop(grace=1.0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(Settings.read(os.environ)))
