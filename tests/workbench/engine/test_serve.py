"""One simulated server over real sockets, on a clock of the test's own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import ClientSession, web
from prometheus_client.parser import text_string_to_metric_families

from longtail.workbench.engine.chat import ChatRequest, Lengths, drawn
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
        return self._post("/v1/completions", body)

    def ask_chat(self, **body: object) -> asyncio.Task[str]:
        return self._post("/v1/chat/completions", body)

    def _post(self, path: str, body: Mapping[str, object]) -> asyncio.Task[str]:
        async def answer() -> str:
            async with self.session.post(path, json=body) as response:
                return f"{response.status} {await response.text()}"

        return asyncio.create_task(answer())

    def later(self, seconds: float) -> None:
        """Time passes, and the engine works."""
        self.clock.seconds += seconds
        self.server.page()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    clock = Clock()
    server = Server(ServiceDefinition(name="pod", slots=SLOTS), speed=1.0, clock=clock, draw=lambda: Lengths(400, 30))
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


def chat(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "why is that"}], **fields}


def tokens(answer: str) -> tuple[int, int, str]:
    """Of the thought, of all, and why it ended."""
    body = json.loads(answer.partition(" ")[2])
    usage, (choice,) = body["usage"], body["choices"]
    message = choice["message"]
    reasoning = len((message["reasoning"] or "").split())
    assert usage["completion_tokens_details"] == {"reasoning_tokens": reasoning}
    assert usage["completion_tokens"] == reasoning + len((message["content"] or "").split())
    return reasoning, usage["completion_tokens"], choice["finish_reason"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, (400, 430, "stop"), id="as-long-as-it-takes"),
        pytest.param({"thinking_token_budget": 100}, (100, 130, "stop"), id="the-thought-is-cut-and-the-answer-is-not"),
        pytest.param({"thinking_token_budget": 0}, (0, 30, "stop"), id="no-thought"),
        pytest.param({"thinking_token_budget": 5000}, (400, 430, "stop"), id="a-budget-nobody-needs"),
        pytest.param({"thinking_token_budget": -1}, (400, 430, "stop"), id="no-limit"),
        pytest.param({"thinking_token_budget": None}, (400, 430, "stop"), id="null"),
        pytest.param({"max_tokens": 410}, (400, 410, "length"), id="the-answer-is-cut"),
        pytest.param({"max_tokens": 50}, (50, 50, "length"), id="cut-in-the-thought"),
        pytest.param({"max_completion_tokens": 410, "max_tokens": 420}, (400, 410, "length"), id="the-newer-name"),
        pytest.param({"thinking_token_budget": 100, "max_tokens": 110}, (100, 110, "length"), id="both"),
    ],
)
async def test_a_chat_thinks_and_answers_within_its_limits(
    served: Served, fields: dict[str, object], expected: tuple[int, int, str]
) -> None:
    answer = served.ask_chat(**chat(**fields))
    await served.until("vllm:num_requests_running", 1)
    served.later(10.0)
    assert tokens(await answer) == expected
    assert await served.value("vllm:request_generation_tokens_sum") == expected[1]


async def test_a_chat_stream_says_what_it_cost(served: Served) -> None:
    answer = served.ask_chat(**chat(stream=True, stream_options={"include_usage": True}, thinking_token_budget=7))
    await served.until("vllm:num_requests_running", 1)
    served.later(10.0)
    lines = [line.removeprefix("data: ") for line in (await answer).split("\n\n") if "data: " in line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[1:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] == 37
    assert len(chunks[-3]["choices"][0]["delta"]["reasoning"].split()) == 7
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"thinking_token_budget": -2}, "thinking_token_budget", id="negative"),
        pytest.param({"thinking_token_budget": 5.0}, "thinking_token_budget", id="a-float"),
        pytest.param({"thinking_token_budget": True}, "thinking_token_budget", id="a-boolean"),
        pytest.param({"thinking_token_budget": "5"}, "thinking_token_budget", id="a-string"),
        pytest.param({"max_tokens": 0}, "max_tokens", id="no-tokens"),
        pytest.param({"max_tokens": 1_000_000}, "max_tokens: 1000000", id="longer-than-the-model"),
        pytest.param({"messages": []}, "messages", id="nothing-asked"),
    ],
)
async def test_a_bad_chat_is_told_which_field_is_bad(served: Served, fields: dict[str, object], words: str) -> None:
    answer = await served.ask_chat(**chat() | fields)
    assert answer.startswith("400 ")
    assert words in answer


def test_without_a_reasoning_parser_a_budget_is_refused() -> None:
    server = Server(ServiceDefinition(name="pod"), speed=1.0, clock=Clock(), budgets=False)
    with pytest.raises(ValueError, match="--reasoning-parser"):
        server.submit_chat(ChatRequest.model_validate(chat(thinking_token_budget=5)))


def test_drawn_thoughts_are_about_three_quarters_of_the_output() -> None:
    draw = drawn(seed=1)
    lengths = [draw() for _ in range(2000)]
    share = sum(each.reasoning_tokens for each in lengths) / sum(each.tokens for each in lengths)
    assert share == pytest.approx(0.74, abs=0.01)
    assert len({each.tokens for each in lengths}) > 500


@pytest.mark.parametrize(
    ("fields", "thought"),
    [
        pytest.param({"custom_params": {"thinking_budget": 100}}, 100, id="its-own-field"),
        pytest.param({"thinking_token_budget": 100}, 400, id="not-that-of-vllm"),
        pytest.param({"custom_params": {"thinking_budget": "100"}}, 400, id="no-number"),
        pytest.param({"custom_params": {"other": 1}}, 400, id="other-parameters"),
    ],
)
def test_sglang_takes_its_budget_from_its_own_field(fields: dict[str, object], thought: int) -> None:
    definition = ServiceDefinition(name="pod", engine="sglang")
    server = Server(definition, speed=1.0, clock=Clock(), draw=lambda: Lengths(400, 30))
    _, _, lengths, _ = server.submit_chat(ChatRequest.model_validate(chat(**fields)))
    assert lengths == Lengths(thought, 30)
