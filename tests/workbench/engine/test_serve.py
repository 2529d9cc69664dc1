"""One simulated server over real sockets, on a clock of the test's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from prometheus_client.parser import text_string_to_metric_families

from longtail.workbench.engine.serve import Server, application
from longtail.workbench.engine.service import ServiceDefinition

SLOTS = 2


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Served:
    """A server and a client for it."""

    def __init__(self, session: ClientSession, server: Server, clock: Clock) -> None:
        self.session, self.server, self.clock = session, server, clock

    async def value(self, name: str) -> float:
        async with self.session.get("/metrics") as response:
            families = text_string_to_metric_families(await response.text())
        return sum(s.value for family in families for s in family.samples if s.name == name)

    async def until(self, name: str, value: float) -> None:
        """Requests cross a socket: the figure follows in a moment."""
        for _ in range(200):
            if await self.value(name) == value:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{name} is {await self.value(name)}, not {value}")

    def ask(self, **body: object) -> asyncio.Task[str]:
        async def answer() -> str:
            async with self.session.post("/v1/completions", json=body) as response:
                return f"{response.status} {await response.text()}"

        return asyncio.create_task(answer())

    def later(self, seconds: float) -> None:
        """Time passes, and the engine works."""
        self.clock.seconds += seconds
        self.server.page()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    clock = Clock()
    server = Server(ServiceDefinition(name="pod", slots=SLOTS), speed=1.0, clock=clock)
    runner = web.AppRunner(application(server), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        yield Served(session, server, clock)
    await runner.cleanup()


async def test_an_answer_takes_as_long_as_the_engine_takes_and_waits_for_a_slot(served: Served) -> None:
    answers = [served.ask(prompt="why", max_tokens=100) for _ in range(SLOTS + 1)]
    await served.until("vllm:num_requests_waiting", SLOTS)
    served.later(0.05)  # the first step ends, and another may join
    assert await served.value("vllm:num_requests_waiting") == 1
    assert await served.value("vllm:num_requests_running") == SLOTS
    served.later(1.2)  # 14 ms a token: not yet
    assert await served.value("vllm:num_requests_running") == SLOTS
    served.later(0.5)
    assert '"completion_tokens": 100' in await answers[0]
    await answers[1]
    await served.until("vllm:num_requests_running", 1)
    served.later(2.0)
    assert (await answers[2]).startswith("200 ")
    assert await served.value("vllm:generation_tokens_total") == 300


async def test_a_stream_ends_with_done(served: Served) -> None:
    answer = served.ask(max_tokens=50, stream=True)
    await served.until("vllm:num_requests_running", 1)
    served.later(2.0)
    assert (await answer).endswith("data: [DONE]\n\n")


async def test_a_client_that_hangs_up_frees_its_slot(served: Served) -> None:
    answer = served.ask(max_tokens=10_000, stream=True)
    await served.until("vllm:num_requests_running", 1)
    answer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await answer
    for _ in range(200):
        served.later(0.1)
        if await served.value("vllm:num_requests_running") == 0:
            break
        await asyncio.sleep(0.01)
    assert await served.value("vllm:num_requests_running") == 0
    assert await served.value("vllm:request_success_total") == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param({"max_tokens": 0}, "max_tokens", id="no-tokens"),
        pytest.param({"max_tokens": 1_000_000}, "max_tokens: 1000000", id="longer-than-the-model"),
        pytest.param({"max_tokens": "many"}, "max_tokens", id="no-number"),
    ],
)
async def test_a_bad_request_is_told_which_field_is_bad(served: Served, body: dict[str, object], words: str) -> None:
    answer = await served.ask(**body)
    assert answer.startswith("400 ")
    assert words in answer
