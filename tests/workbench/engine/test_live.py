"""The live process over real sockets, on a clock of the test's own."""

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from prometheus_client.parser import text_string_to_metric_families

from longtail.workbench.engine.arguments import arguments
from longtail.workbench.engine.live import Fleet, application, follow_forever

CHAT = {"rate": {"points": [[0, 4]]}, "namespace": "ns"}


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Live:
    """A served fleet and a client for it."""

    def __init__(self, session: ClientSession, clock: Clock, fleet: Fleet) -> None:
        self.session, self.clock, self.fleet = session, clock, fleet

    async def call(self, method: str, path: str, body: object = None, *, status: int = 200) -> dict:
        async with self.session.request(method, path, json=body) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text)

    async def text(self, path: str) -> str:
        async with self.session.get(path) as response:
            assert response.status == 200
            return await response.text()

    async def truth(self, service: str = "r1") -> dict:
        return (await self.call("GET", "/truth"))["services"][service]


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    clock = Clock()
    fleet = Fleet(speed=1.0, clock=clock)
    async with served(application(fleet)) as port, ClientSession(f"http://127.0.0.1:{port}") as session:
        yield Live(session, clock, fleet)


def value(text: str, name: str) -> float:
    return sum(s.value for f in text_string_to_metric_families(text) for s in f.samples if s.name == name)


async def test_a_service_is_created_fed_and_scraped(live):
    await live.call("PUT", "/services/r1", CHAT, status=201)
    await live.call("PUT", "/services/r1/pods", {"pods": ["a", "b"]})
    live.clock.seconds += 60
    pages = [await live.text(f"/pods/ns/{pod}/metrics") for pod in "ab"]
    truth = await live.truth()
    assert truth["running_requests"] == sum(value(page, "vllm:num_requests_running") for page in pages) > 0
    generated = sum(value(page, "vllm:generation_tokens_total") for page in pages)
    assert truth["totals"]["generated_tokens"] == generated
    assert truth["arrived_requests"] == pytest.approx(240, rel=0.3)
    assert value(await live.text("/gpu/metrics"), "DCGM_FI_PROF_GR_ENGINE_ACTIVE") > 0


async def test_discovery_names_every_pod_with_its_path(live):
    await live.call("PUT", "/services/r1", CHAT, status=201)
    await live.call("PUT", "/services/r2", {**CHAT, "gateway": True, "job": "inference"}, status=201)
    await live.call("PUT", "/services/r1/pods", {"pods": ["a"]})
    await live.call("PUT", "/services/r2/pods", {"pods": ["b"]})
    first, second = await live.call("GET", "/sd")
    assert first["labels"] == {
        "__metrics_path__": "/pods/ns/a/metrics",
        "job": "r1",
        "namespace": "ns",
        "pod": "a",
        "instance": "a:8000",
    }
    assert second["labels"]["job"] == "inference"
    assert await live.call("GET", "/sd?service=r2") == [second]
    for group in await live.call("GET", "/sd/witnesses") + [first, second]:
        (target,) = group["targets"]
        async with live.session.get(f"http://{target}{group['labels']['__metrics_path__']}") as response:
            assert response.status == 200


async def test_thousands_of_pods_live_in_one_process(live):
    await live.call("PUT", "/services/r1", {**CHAT, "rate": {"points": [[0, 100]]}}, status=201)
    pods = [f"pod-{i}" for i in range(2000)]
    await live.call("PUT", "/services/r1/pods", {"pods": pods})
    live.clock.seconds += 5
    assert len(await live.call("GET", "/sd")) == 2000
    pages = [await live.text(f"/pods/ns/{pod}/metrics") for pod in pods[::20]]
    running = sum(value(page, "vllm:num_requests_running") for page in pages)
    assert running > 0
    assert (await live.truth())["pods"] == 2000


async def test_the_gateway_page_tells_the_queue_at_the_door(live):
    await live.call("PUT", "/services/r1", {**CHAT, "gateway": True}, status=201)
    live.clock.seconds += 10
    page = await live.text("/gateway/r1/metrics")
    assert value(page, "llm_d_epp_flow_control_queue_size") == (await live.truth())["door_requests"] > 0


async def test_clients_can_be_paused_told_another_rate_and_made_to_give_up(live):
    await live.call("PUT", "/services/r1", CHAT, status=201)
    await live.call("PUT", "/services/r1/pods", {"pods": ["a"]})
    await live.call("POST", "/services/r1/rate", {"points": [[0, 50]]})
    live.clock.seconds += 10
    before = (await live.truth())["arrived_requests"]
    assert before == pytest.approx(500, rel=0.25)
    await live.call("POST", "/services/r1/pause", {"paused": True})
    live.clock.seconds += 10
    assert (await live.truth())["arrived_requests"] == before
    aborted = (await live.call("POST", "/services/r1/abort", {"share": 0.5}))["aborted"]
    live.clock.seconds += 1
    assert (await live.truth())["totals"]["aborted_requests"] == aborted > 0
    lost = (await live.call("POST", "/services/r1/restart", {"pod": "a"}))["lost"]
    assert (await live.truth())["killed_requests"] == lost > 0


@pytest.mark.parametrize(
    ("kind", "status", "begins"),
    [
        pytest.param("html", 200, "<!doctype html>", id="a login page"),
        pytest.param("error", 500, "Internal", id="an error"),
        pytest.param("empty", 200, "", id="nothing"),
        pytest.param("slow", 200, "# HELP", id="a slow answer"),
        pytest.param("nan", 200, "# HELP", id="no numbers"),
        pytest.param("none", 200, "# HELP", id="no fault"),
    ],
)
async def test_metrics_can_be_made_to_fail(live, kind, status, begins):
    await live.call("PUT", "/services/r1", CHAT, status=201)
    await live.call("PUT", "/services/r1/pods", {"pods": ["a", "b"]})
    await live.call("POST", "/services/r1/fault", {"kind": kind, "pods": ["a"], "delay_seconds": 0.05})
    async with live.session.get("/pods/ns/a/metrics") as response:
        assert response.status == status
        assert (await response.text()).startswith(begins)
    assert (await live.text("/pods/ns/b/metrics")).startswith("# HELP")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        pytest.param("PUT", "/services/x", {"slots": -3}, 400, "slots.*-3", id="a bad field"),
        pytest.param("PUT", "/services/x", {"profile": "abacus"}, 400, "abacus", id="an unknown profile"),
        pytest.param("PUT", "/services/x", [1], 400, r"\[1\]", id="not an object"),
        pytest.param("POST", "/services/r1/abort", {"share": 2}, 400, "share.*2", id="a share above 1"),
        pytest.param("POST", "/services/r1/fault", {"kind": "plague"}, 400, "kind.*plague", id="an unknown fault"),
        pytest.param("POST", "/services/r1/rate", {"points": []}, 400, "points", id="no points"),
        pytest.param("POST", "/services/nobody/pause", {"paused": True}, 404, "nobody", id="an unknown service"),
        pytest.param("POST", "/services/r1/restart", {"pod": "zz"}, 404, "zz", id="an unknown pod"),
        pytest.param("GET", "/pods/ns/zz/metrics", None, 404, "ns/zz", id="a pod that is not there"),
        pytest.param("GET", "/truth?window_seconds=soon", None, 400, "soon", id="a window that is no number"),
        pytest.param("PUT", "/services/follower/pods", {"pods": []}, 400, "app=x", id="pods of a follower"),
    ],
)
async def test_bad_input_gets_an_answer_that_names_it(live, method, path, body, status, named):
    await live.call("PUT", "/services/r1", CHAT, status=201)
    await live.call("PUT", "/services/follower", {**CHAT, "selector": "app=x"}, status=201)
    answer = await live.call(method, path, body, status=status)
    assert re.search(named, answer["error"])


# ---------------------------------------------------------------- following a cluster


def kubeconfig(path: Path, port: int) -> str:
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        )
    )
    return str(path)


class ApiServer:
    """The one route of the Kubernetes API that is followed, with its query kept."""

    def __init__(self) -> None:
        self.pods: list[str] = []
        self.broken = False
        self.answered = asyncio.Event()
        self.queries: list[dict[str, str]] = []

    async def list_pods(self, request: web.Request) -> web.Response:
        assert request.match_info["namespace"] == "ns"
        self.queries.append(dict(request.query))
        self.answered.set()
        if self.broken:
            return web.json_response({"kind": "Status", "message": "etcd is gone"}, status=500)
        items = [
            {
                "metadata": {"name": p, "uid": p},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
            for p in self.pods
        ]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "items": items})

    async def two_answers(self) -> None:
        """When the second answer from now is asked for, the first has been taken in."""
        for _ in range(2):
            self.answered.clear()
            await asyncio.wait_for(self.answered.wait(), 10)


async def test_a_service_with_a_selector_follows_the_cluster(live, tmp_path, monkeypatch):
    monkeypatch.setattr("longtail.workbench.engine.live.TICK_SECONDS", 0.01)
    await live.call("PUT", "/services/r1", {**CHAT, "selector": "app=r1"}, status=201)
    server = ApiServer()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/{namespace}/pods", server.list_pods)
    async with served(app) as port:
        follower = asyncio.create_task(follow_forever(live.fleet, kubeconfig=kubeconfig(tmp_path / "k", port)))
        try:
            server.pods = ["a", "b"]
            await server.two_answers()
            assert (await live.truth())["pods"] == 2
            assert server.queries[0]["labelSelector"] == "app=r1"
            server.broken = True
            await server.two_answers()
            assert (await live.truth())["pods"] == 2
            server.broken, server.pods = False, ["b"]
            await server.two_answers()
            assert list(live.fleet.services["r1"].pool.pods) == ["b"]
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)


# ---------------------------------------------------------------- the process


async def start(*options: str) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "longtail.workbench.engine.live",
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    return process, json.loads(line)["port"]


async def test_the_process_prints_its_port_serves_and_ends_on_sigterm(tmp_path):
    definitions = tmp_path / "services.json"
    definitions.write_text(json.dumps([{"name": "r1", **CHAT}, {"name": "r2", "engine": "sglang"}]))
    process, port = await start("--services", str(definitions), "--speed", "50", "--max-seconds", "60")
    try:
        async with ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/truth") as response:
                truth = await response.json()
            assert truth["speed"] == 50
            assert list(truth["services"]) == ["r1", "r2"]
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 30)
    assert code == 0


async def test_the_process_ends_by_itself():
    process, _ = await start("--max-seconds", "0.1")
    assert await asyncio.wait_for(process.wait(), 30) == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        pytest.param(["--speed", "0"], "--speed", id="no speed"),
        pytest.param(["--max-seconds", "-1"], "--max-seconds", id="no time"),
        pytest.param(["--profile", "abacus"], "abacus", id="an unknown profile"),
        pytest.param(["--rate", "-2"], "-2", id="a negative rate"),
        pytest.param(["--services", "/nowhere/at/all"], "/nowhere", id="a file that is not there"),
    ],
)
def test_a_wrong_command_line_is_refused(options, named, capsys):
    with pytest.raises(SystemExit):
        arguments(options)
    assert named in capsys.readouterr().err


def test_one_service_needs_no_file():
    parsed = arguments(["--selector", "app=r1", "--rate", "3", "--seed", "7", "--namespace", "inference"])
    (definition,) = parsed.definitions
    assert (definition.selector, definition.seed, definition.namespace) == ("app=r1", 7, "inference")
    assert definition.rate.points == ((0.0, 3.0),)
