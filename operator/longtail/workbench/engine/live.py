"""A process full of simulated inference servers, for demonstrations and tests against a real Prometheus.

``python -m longtail.workbench.engine.live --port 0 ...`` prints one JSON line with the port, then serves on
loopback::

    GET  /pods/{namespace}/{pod}/metrics         one engine pod, as vLLM or SGLang writes it
    GET  /gpu/metrics                            all GPUs, as dcgm-exporter writes them
    GET  /gateway/{service}/metrics              the queue at the door, as llm-d writes it
    GET  /sd?service=    /sd/witnesses           targets, for http_sd_configs
    GET  /truth?window_seconds=&target_seconds=  what is really going on, by service
    PUT  /services/{name}                        a ServiceDefinition
    PUT  /services/{name}/pods                   {"pods": ["a", "b"]}
    POST /services/{name}/rate                   a RateDefinition, from now on
    POST /services/{name}/pause                  {"paused": true}
    POST /services/{name}/fault                  a Fault
    POST /services/{name}/abort                  {"share": 0.3}
    POST /services/{name}/restart                {"pod": "a"}

A service with a ``selector`` follows the pods of a cluster, listed every second, and with a ``service`` sends
requests only to the ready endpoints of that Service. ``--speed`` makes GPU and
clients faster (see ``service``); the clock stays the one on the wall. The process ends on SIGTERM, SIGINT or
after ``--max-seconds``.
"""

import asyncio
import json
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from aiohttp import ClientError, web
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longtail.workbench.engine.arguments import arguments
from longtail.workbench.engine.exposition_witness import gateway_page, gpu_page
from longtail.workbench.engine.hosting import host, metrics_page
from longtail.workbench.engine.service import (
    Fault,
    Name,
    PodState,
    RateDefinition,
    Service,
    ServiceDefinition,
    endpoints_of_list,
    pods_of_list,
)

log = logging.getLogger("longtail.engine.live")

TICK_SECONDS = 1.0
_LIST_TIMEOUT_SECONDS = 10.0
_LOGIN_PAGE = "<!doctype html><html><body>Please log in</body></html>"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Pods(_Body):
    pods: list[Name] = Field(max_length=20_000)


class _Pause(_Body):
    paused: bool


class _Abort(_Body):
    share: float = Field(ge=0, le=1)


class _Restart(_Body):
    pod: str


class _Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class Fleet:
    """All services, and the clock: seconds since the process started."""

    def __init__(self, *, speed: float, clock: Callable[[], float]) -> None:
        self.speed = speed
        self.services: dict[str, Service] = {}
        self._clock = clock
        self._origin = clock()

    @property
    def now_seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._origin

    def put(self, definition: ServiceDefinition) -> None:
        """Add a service, or replace it by a new one without pods."""
        self.services[definition.name] = Service(definition, speed=self.speed, now_seconds=self.now_seconds)

    def advance(self) -> float:
        """Bring everything to the present; returns it."""
        now = self.now_seconds
        for service in self.services.values():
            service.pool.advance(now)
        return now

    async def tick_forever(self) -> None:
        """Work in small portions, so that no scrape has to catch up with much."""
        while True:
            self.advance()
            await asyncio.sleep(TICK_SECONDS)


# ---------------------------------------------------------------- following a cluster


async def follow_forever(fleet: Fleet, *, kubeconfig: str) -> None:
    """List the pods of every service with a selector once a second.

    An API server that does not answer changes nothing: the pods stay as they were last seen.
    """
    configuration = kube.Configuration()
    await kube_config.load_kube_config(  # type: ignore[no-untyped-call]  # the library annotates nothing here
        config_file=kubeconfig, client_configuration=configuration, persist_config=False
    )
    async with kube.ApiClient(configuration) as api:
        core, discovery = kube.CoreV1Api(api), kube.DiscoveryV1Api(api)
        while True:
            for service in [s for s in fleet.services.values() if s.definition.selector]:
                try:
                    states = await _list_pods(core, discovery, service.definition)
                except (ClientError, kube.ApiException, OSError, TimeoutError, ValueError) as error:
                    log.warning("cannot list the pods of %s: %r", service.definition.name, error)
                else:
                    service.follow(states, now_seconds=fleet.now_seconds)
            await asyncio.sleep(TICK_SECONDS)


async def _list_pods(
    core: kube.CoreV1Api, discovery: kube.DiscoveryV1Api, definition: ServiceDefinition
) -> list[PodState]:
    """The raw JSON: building the client's model objects would cost milliseconds per pod."""
    endpoints = None
    if definition.service is not None:
        slices = await discovery.list_namespaced_endpoint_slice_without_preload_content(
            definition.namespace,
            label_selector=f"kubernetes.io/service-name={definition.service}",
            resource_version="0",
            _request_timeout=_LIST_TIMEOUT_SECONDS,
        )
        endpoints = endpoints_of_list(await _list_of(slices, "EndpointSliceList"))
    response = await core.list_namespaced_pod_without_preload_content(
        definition.namespace,
        label_selector=definition.selector,
        resource_version="0",
        _request_timeout=_LIST_TIMEOUT_SECONDS,
    )
    body = await _list_of(response, "PodList")
    return pods_of_list(body, route_label=definition.route_label, endpoints=endpoints)


async def _list_of(response: Any, kind: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await response.read())
    if response.status != 200 or body.get("kind") != kind:
        raise ValueError(f"HTTP {response.status}: {body.get('message', '')}")
    return body


# ---------------------------------------------------------------- HTTP


def application(fleet: Fleet) -> web.Application:
    """The routes over a fleet."""
    app = web.Application(middlewares=[_explain], client_max_size=4 * 2**20)
    handlers = _Handlers(fleet)
    app.add_routes(
        [
            web.get("/pods/{namespace}/{pod}/metrics", handlers.pod_metrics),
            web.get("/gpu/metrics", handlers.gpu_metrics),
            web.get("/gateway/{service}/metrics", handlers.gateway_metrics),
            web.get("/sd", handlers.discovery),
            web.get("/sd/witnesses", handlers.witnesses),
            web.get("/truth", handlers.truth),
            web.put("/services/{service}", handlers.put_service),
            web.put("/services/{service}/pods", handlers.put_pods),
            web.post("/services/{service}/rate", handlers.rate),
            web.post("/services/{service}/pause", handlers.pause),
            web.post("/services/{service}/fault", handlers.fault),
            web.post("/services/{service}/abort", handlers.abort),
            web.post("/services/{service}/restart", handlers.restart),
        ]
    )
    return app


@web.middleware
async def _explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Bad input becomes a 400 that names field and value, an unknown name a 404."""
    try:
        return await handler(request)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e.get('input')!r:.200}" for e in error.errors()]
        return web.json_response({"error": "; ".join(lines)}, status=400)
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)
    except KeyError as error:
        return web.json_response({"error": f"there is no {error.args[0]!r}"}, status=404)


class _Handlers:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def _service(self, request: web.Request) -> Service:
        return self._fleet.services[request.match_info["service"]]

    async def pod_metrics(self, request: web.Request) -> web.Response:
        namespace, pod = request.match_info["namespace"], request.match_info["pod"]
        for service in self._fleet.services.values():
            if service.definition.namespace == namespace and pod in service.pool.pods:
                return await self._page(service, pod)
        raise KeyError(f"{namespace}/{pod}")

    async def _page(self, service: Service, pod: str) -> web.Response:
        kind = service.fault_of(pod)
        if kind == "slow":
            await asyncio.sleep(service.fault.delay_seconds)
        if kind == "error":
            return web.Response(status=500, text="Internal Server Error")
        if kind == "html":
            return web.Response(text=_LOGIN_PAGE, content_type="text/html")
        if kind == "empty":
            return metrics_page("")
        service.pool.advance(self._fleet.now_seconds)
        return metrics_page(service.page(pod))

    async def gpu_metrics(self, _: web.Request) -> web.Response:
        self._fleet.advance()
        services = self._fleet.services.values()
        return metrics_page(gpu_page((s.definition.namespace, s.pool.pods.values()) for s in services))

    async def gateway_metrics(self, request: web.Request) -> web.Response:
        service = self._service(request)
        service.pool.advance(self._fleet.now_seconds)
        page = gateway_page(
            inference_pool=service.definition.name,
            model_name=service.pool.profile.model,
            queued_requests=len(service.pool.door),
        )
        return metrics_page(page)

    async def discovery(self, request: web.Request) -> web.Response:
        wanted = request.query.get("service")
        groups = [
            _target(
                request,
                f"/pods/{service.definition.namespace}/{pod}/metrics",
                job=service.definition.job or name,
                namespace=service.definition.namespace,
                pod=pod,
                instance=f"{pod}:8000",
            )
            for name, service in self._fleet.services.items()
            if wanted in {None, name}
            for pod in service.pool.pods
        ]
        return web.json_response(groups)

    async def witnesses(self, request: web.Request) -> web.Response:
        groups = [_target(request, "/gpu/metrics", job="dcgm-exporter")]
        for name, service in self._fleet.services.items():
            if service.definition.gateway:
                labels = {"job": "endpoint-picker", "namespace": service.definition.namespace}
                groups.append(_target(request, f"/gateway/{name}/metrics", **labels))
        return web.json_response(groups)

    async def truth(self, request: web.Request) -> web.Response:
        window = float(request.query.get("window_seconds", "inf"))
        target = float(request.query.get("target_seconds", "10"))
        if math.isnan(window) or math.isnan(target):
            raise ValueError("window_seconds and target_seconds must be numbers, got NaN")
        now = self._fleet.advance()
        services = {
            name: asdict(service.pool.truth(target_seconds=target, window_seconds=window))
            for name, service in self._fleet.services.items()
        }
        return web.json_response({"now_seconds": now, "speed": self._fleet.speed, "services": services})

    async def put_service(self, request: web.Request) -> web.Response:
        body = _Anything.model_validate(await _json(request)).model_dump()
        self._fleet.put(ServiceDefinition.model_validate({**body, "name": request.match_info["service"]}))
        return web.json_response({}, status=201)

    async def put_pods(self, request: web.Request) -> web.Response:
        service = self._service(request)
        if service.definition.selector:
            raise ValueError(f"pods: they follow the selector {service.definition.selector!r}")
        body = _Pods.model_validate(await _json(request))
        service.follow([PodState(name=pod) for pod in body.pods], now_seconds=self._fleet.now_seconds)
        return web.json_response({"pods": len(service.pool.pods)})

    async def rate(self, request: web.Request) -> web.Response:
        service, rate = self._service(request), RateDefinition.model_validate(await _json(request))
        service.set_rate(rate, now_seconds=self._fleet.now_seconds)
        return web.json_response({})

    async def pause(self, request: web.Request) -> web.Response:
        service, body = self._service(request), _Pause.model_validate(await _json(request))
        service.pause(paused=body.paused, now_seconds=self._fleet.now_seconds)
        return web.json_response({})

    async def fault(self, request: web.Request) -> web.Response:
        service = self._service(request)
        service.set_fault(Fault.model_validate(await _json(request)))
        return web.json_response({})

    async def abort(self, request: web.Request) -> web.Response:
        service, body = self._service(request), _Abort.model_validate(await _json(request))
        aborted = service.abort(body.share, now_seconds=self._fleet.now_seconds)
        return web.json_response({"aborted": aborted})

    async def restart(self, request: web.Request) -> web.Response:
        service, body = self._service(request), _Restart.model_validate(await _json(request))
        lost = service.restart(body.pod, now_seconds=self._fleet.now_seconds)
        return web.json_response({"lost": lost})


async def _json(request: web.Request) -> Any:
    return json.loads(await request.read())


def _target(request: web.Request, path: str, **labels: str) -> dict[str, Any]:
    return {"targets": [request.host], "labels": {"__metrics_path__": path, **labels}}


# ---------------------------------------------------------------- the process


async def serve(
    *,
    definitions: Sequence[ServiceDefinition],
    port: int,
    kubeconfig: str | None,
    speed: float,
    max_seconds: float,
) -> None:
    """Serve until SIGTERM, SIGINT or ``max_seconds``."""
    fleet = Fleet(speed=speed, clock=asyncio.get_running_loop().time)
    for definition in definitions:
        fleet.put(definition)
    jobs: list[Callable[[], Coroutine[Any, Any, None]]] = [fleet.tick_forever]
    if kubeconfig:
        jobs.append(partial(follow_forever, fleet, kubeconfig=kubeconfig))
    await host(application(fleet), address="127.0.0.1", port=port, jobs=jobs, max_seconds=max_seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parsed = arguments(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    asyncio.run(
        serve(
            definitions=parsed.definitions,
            port=parsed.port,
            kubeconfig=parsed.kubeconfig,
            speed=parsed.speed,
            max_seconds=parsed.max_seconds,
        )
    )


if __name__ == "__main__":
    main()
