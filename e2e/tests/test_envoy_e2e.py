"""The real Envoy with our processor, before simulated engines: what is published, is applied, and nothing else is.

The engine thinks 4,000 tokens and answers 300, unless it is told to think less. So the length of a thought that comes
back says which budget the request carried. Bodies that are no requests go to a server that keeps what it was sent.
"""

import gzip
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests

from longtail_e2e import ProcessGroup, wait_until
from longtail_e2e.envoy import (
    BUFFER_BYTES,
    INTEGRATION,
    MESSAGE_TIMEOUT_SECONDS,
    PROCESSOR,
    Envoy,
    ensure_envoy,
    ensure_processor,
    processor,
)
from longtail_e2e.litellm import thinking_engine
from longtail_e2e.pinned import startup_code
from longtail_e2e.ports import LOOPBACK, PortReservation
from longtail_e2e.published import WISHES, Published
from longtail_e2e.published import document as published_document
from longtail_e2e.recorder import Recorder

THOUGHT, ANSWER = 4000, 300
LENGTHS = (f"--reasoning-tokens={THOUGHT}", f"--answer-tokens={ANSWER}")
FAST, SLOW = "--speed=400", "--speed=10"
"""A thought of 1,024 tokens and its answer take 0.05 s, and 2 s."""
JSON = {"Content-Type": "application/json"}
document = partial(published_document, model="r1")

pytestmark = pytest.mark.e2e


class Gateway:
    """Envoy, what is behind it, and what is published."""

    def __init__(
        self, envoy: Envoy, published: Published, recorder: Recorder, processes: ProcessGroup, metrics: str
    ) -> None:
        self.envoy, self.published, self.recorder, self.processes = envoy, published, recorder, processes
        self._metrics = metrics

    def thought(self, engine: str = "engine", **fields: Any) -> int:
        """Tokens of a thought; the answer behind it is always whole."""
        answer = self.envoy.ask(engine, **fields)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        thought: int = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert body["choices"][0]["finish_reason"] == "stop"
        assert len(body["choices"][0]["message"]["content"].split()) == ANSWER
        return thought

    def sent(self, body: Any, *, path: str = "/v1/chat/completions", **headers: str) -> bytes:
        """What an engine is sent, when a client sends `body`."""
        url = f"{self.envoy.url}/recorder{path}"
        answer = requests.post(url, data=body, headers=JSON | headers, timeout=30.0)
        assert answer.status_code == 200, answer.text
        return self.recorder.body

    def log(self) -> str:
        return self.processes.log(PROCESSOR).read_text()

    def outcome(self, name: str, model: str = "r1") -> float:
        page = requests.get(self._metrics, timeout=5.0).text
        label = f'longtail_effort_requests_total{{model="{model}",outcome="{name}"}} '
        return sum(float(line.removeprefix(label)) for line in page.splitlines() if line.startswith(label))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """An engine that takes budgets, one that is slow, one without reasoning parser, one that says it is SGLang."""
    binary, python = ensure_envoy(), ensure_processor()
    processes, ports, recorder = ProcessGroup(tmp_path_factory.mktemp("envoy")), PortReservation(), Recorder()
    try:
        engines = {"recorder": recorder.port}
        for name, flags in {
            "engine": (FAST,),
            "slow": (SLOW,),
            "without-parser": (FAST, "--no-budgets"),
            "sglang": (FAST, "--engine=sglang"),
        }.items():
            engines[name] = ports.take()
            processes.start(thinking_engine(name, engines[name], *LENGTHS, *flags))
        published = Published(tmp_path_factory.mktemp("published") / "effort.json")
        serving, metrics = ports.take(), ports.take()
        here = {"service": "inference/r1"}
        processes.start(
            processor(
                python,
                port=serving,
                metrics_port=metrics,
                environment={
                    "LONGTAIL_EFFORT_PATH": str(published.file.parent),
                    "LONGTAIL_EFFORT_CLASS_HEADER": "X-Class",
                    "LONGTAIL_EFFORT_MODELS": json.dumps(
                        {"r1-sglang": here | {"engine": "sglang"}, "r1-without-parser": here}
                        | {"r1-words": here | {"engine": "reasoning_effort"}}
                        | {"r1-cut": here | {"engine": "max_tokens", "answer_tokens": 200}}
                    ),
                },
            )
        )
        folder = tmp_path_factory.mktemp("configuration")
        envoy = Envoy(binary, port=ports.take(), admin_port=ports.take(), directory=folder)
        processes.start(envoy.command(engines=engines, processor_port=serving))
        yield Gateway(envoy, published, recorder, processes, f"http://{LOOPBACK}:{metrics}/metrics")
    finally:
        processes.stop_all()
        ports.release()
        recorder.close()


@pytest.fixture
def gateway(started: Gateway) -> Iterator[Gateway]:
    """Nothing is published, before and after."""
    yield started
    started.published.remove()


def test_without_a_document_nothing_changes(gateway: Gateway) -> None:
    answer = gateway.envoy.ask()
    assert "x-longtail-effort" not in answer.headers
    assert gateway.thought() == THOUGHT


@pytest.mark.parametrize(
    ("fields", "thought"),
    [
        *(pytest.param(fields, thought, id=name) for name, (fields, thought) in WISHES.items()),
        pytest.param({"extra_body": {"thinking_token_budget": 100}}, 1024, id="extra-body-means-nothing-to-an-engine"),
        pytest.param({"thinking": {"budget_tokens": 700}}, 700, id="less-in-anthropics-words"),
        pytest.param({"headers": {"X-Class": "premium"}}, 2048, id="a-class-with-a-floor"),
        pytest.param({"headers": {"x-class": "premium"}, "thinking_token_budget": 99}, 99, id="which-asks-for-less"),
        pytest.param({"headers": {"X-Class": "unknown"}}, 1024, id="a-class-that-nobody-knows"),
        pytest.param({"engine": "sglang", "model": "r1-sglang"}, 1024, id="sglang"),
        pytest.param(
            {"engine": "sglang", "model": "r1-sglang", "custom_params": {"thinking_budget": 99}},
            99,
            id="less-on-sglang",
        ),
        pytest.param({"model": "other"}, THOUGHT, id="a-model-that-nobody-publishes-for"),
    ],
)
def test_in_a_shortage_a_request_thinks_as_much_as_it_may(
    gateway: Gateway, fields: dict[str, Any], thought: int
) -> None:
    gateway.published.write(document())
    assert gateway.thought(**fields) == thought


def test_other_engines_are_told_in_their_own_words(gateway: Gateway) -> None:
    gateway.published.write(document())
    rest = {"messages": [{"role": "user", "content": "warum? 為什麼?"}], "temperature": 0.6}
    for model, field in (("r1-words", {"reasoning_effort": "low"}), ("r1-cut", {"max_tokens": 1224})):
        sent = gateway.sent(json.dumps({"model": model, **rest}))
        assert json.loads(sent) == {"model": model, **rest, **field}


def test_who_is_given_less_is_told_and_it_is_counted(gateway: Gateway) -> None:
    gateway.published.write(document())
    before = gateway.outcome("applied"), gateway.outcome("own")
    assert gateway.envoy.ask().headers["x-longtail-effort"] == "low"
    assert gateway.envoy.ask(headers={"X-Class": "premium"}).headers["x-longtail-effort"] == "medium"
    assert "x-longtail-effort" not in gateway.envoy.ask(thinking_token_budget=5).headers
    assert (gateway.outcome("applied"), gateway.outcome("own")) == (before[0] + 2, before[1] + 1)


def test_after_valid_until_the_request_goes_through_unchanged(gateway: Gateway) -> None:
    gateway.published.write(document(seconds=4.0))
    assert gateway.thought() == 1024
    time.sleep(4.0)
    assert gateway.thought() == THOUGHT
    assert "expired inference/r1: nothing is said since" in gateway.log()


@pytest.mark.parametrize("body", ["", "[]", document(thinkingTokens="1024"), document(classes={"premium": 5})])
def test_a_broken_document_changes_nothing(gateway: Gateway, body: object) -> None:
    gateway.published.write(document())
    assert gateway.thought() == 1024
    gateway.published.write(body)
    assert gateway.thought() == THOUGHT
    assert "broken" in gateway.log()


def arrivals(answer: requests.Response) -> list[tuple[float, str]]:
    """The events of a stream, and when each came."""
    lines = ((time.monotonic(), line.decode()) for line in answer.iter_lines(chunk_size=1))
    return [(at, line.removeprefix("data: ")) for at, line in lines if line]


def test_a_stream_is_limited_and_stays_a_stream(gateway: Gateway) -> None:
    gateway.published.write(document())
    answer = gateway.envoy.ask("slow", stream=True, stream_options={"include_usage": True})
    assert answer.headers["x-longtail-effort"] == "low"
    events = arrivals(answer)
    assert events[-1][1] == "[DONE]"
    assert json.loads(events[-2][1])["usage"]["completion_tokens"] == 1024 + ANSWER
    # The engine writes every half second until it is done, and then the rest at once.
    times = [at for at, _ in events]
    assert times[-1] - times[0] > 1.0
    assert sum(later - earlier > 0.2 for earlier, later in itertools.pairwise(times)) >= 2


# ---------------------------------------------------------------- what is left as it came

VALID = b'{"model": "r1", "messages": []}'
DEEP = b'{"model": "r1", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b"", {}, id="empty"),
        pytest.param(b'{"model": "r1", "messag', {}, id="half"),
        pytest.param(b'["r1"]', {}, id="another-shape"),
        pytest.param(b'{"model": 5}', {}, id="a-model-that-is-a-number"),
        pytest.param(b'{"model": "r1", "temperature": NaN}', {}, id="not-a-number"),
        pytest.param(b'{"model": "r1", "temperature": 1e999}', {}, id="more-than-a-double-holds"),
        pytest.param(b'{"model": "r1", "x": "\xff\xfe"}', {}, id="not-utf-8"),
        pytest.param(DEEP, {}, id="nested-deeper-than-python-reads"),
        pytest.param(b'{"model": "r1", "thinking_token_budget": "many"}', {}, id="a-budget-that-is-none"),
        pytest.param(gzip.compress(VALID), {"Content-Encoding": "gzip"}, id="packed"),
        pytest.param(VALID, {"Content-Type": "text/plain"}, id="not-said-to-be-json"),
        pytest.param(VALID, {"path": "/v1/completions"}, id="another-path"),
        pytest.param(VALID[:-1] + b', "x": "' + b"x" * 1_000_000 + b'"}', {}, id="larger-than-allowed"),
        pytest.param(VALID[:-1] + b', "x": "' + b"x" * 2 * BUFFER_BYTES + b'"}', {}, id="larger-than-envoys-buffer"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["of-known-length", "chunked"])
def test_what_is_no_request_reaches_the_engine_byte_for_byte(
    gateway: Gateway, body: bytes, headers: dict[str, str], chunked: bool
) -> None:
    gateway.published.write(document())
    pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    assert gateway.sent(pieces if chunked else body, **headers) == body


def test_a_request_in_chunks_is_limited_as_well(gateway: Gateway) -> None:
    gateway.published.write(document())
    assert json.loads(gateway.sent(iter([VALID[:9], VALID[9:]]))) == json.loads(VALID) | {"thinking_token_budget": 1024}


def test_a_long_prompt_is_limited_as_well(gateway: Gateway) -> None:
    gateway.published.write(document())
    request = json.loads(VALID) | {"x": "x" * (BUFFER_BYTES - 1000)}
    assert json.loads(gateway.sent(json.dumps(request))) == request | {"thinking_token_budget": 1024}


def test_what_the_client_writes_wrong_is_the_engines_to_refuse(gateway: Gateway) -> None:
    gateway.published.write(document())
    answer = gateway.envoy.ask(thinking_token_budget="many")
    assert answer.status_code == 400
    assert "thinking_token_budget" in answer.text
    assert gateway.thought() == 1024


def test_an_engine_without_a_reasoning_parser_costs_one_request_and_no_more(gateway: Gateway) -> None:
    gateway.published.write(document())
    model = "r1-without-parser"
    refused = gateway.envoy.ask("without-parser", model=model)
    assert refused.status_code == 400
    assert "--reasoning-parser" in refused.json()["error"]["message"]
    assert [gateway.thought("without-parser", model=model) for _ in range(3)] == [THOUGHT] * 3
    assert f"refused {model}: the engine takes no thinking_token_budget" in gateway.log()
    assert gateway.thought() == 1024, "the other engine's requests are limited still"


# ---------------------------------------------------------------- when the processor fails


@pytest.fixture
def failing(gateway: Gateway) -> Iterator[Gateway]:
    """A shortage is published; after the test the processor works again."""
    gateway.published.write(document())
    assert gateway.thought() == 1024
    yield gateway
    if PROCESSOR in gateway.processes:
        gateway.processes.resume(PROCESSOR)
    wait_until(lambda: gateway.thought() == 1024, timeout_seconds=20.0, what="the processor to be used again")


def kill(gateway: Gateway) -> None:
    running = gateway.processes[PROCESSOR]
    running.popen.kill()
    running.popen.wait()


def test_without_the_processor_requests_pass_unchanged(failing: Gateway) -> None:
    kill(failing)
    assert [failing.thought() for _ in range(3)] == [THOUGHT] * 3
    assert failing.sent(VALID) == VALID
    failing.processes.restart(PROCESSOR)


def test_the_processor_may_die_in_the_middle_of_an_answer(failing: Gateway) -> None:
    answer = failing.envoy.ask("slow", stream=True, stream_options={"include_usage": True})
    lines = answer.iter_lines(chunk_size=1)
    assert next(lines).startswith(b"data: ")
    whole: list[Any] = []
    limited = failing.outcome("applied")
    before_its_headers = threading.Thread(target=lambda: whole.append(failing.envoy.ask("slow").json()))
    before_its_headers.start()
    wait_until(lambda: failing.outcome("applied") > limited, timeout_seconds=10.0, what="the second request's body")
    time.sleep(0.2)  # it goes on to the engine, which takes two seconds
    kill(failing)
    rest = [line for line in lines if line]
    before_its_headers.join()
    assert rest[-1] == b"data: [DONE]"
    assert json.loads(rest[-2].removeprefix(b"data: "))["usage"]["completion_tokens"] == 1024 + ANSWER
    assert whole[0]["usage"]["completion_tokens"] == 1024 + ANSWER
    failing.processes.restart(PROCESSOR)


def test_a_processor_that_hangs_costs_the_timeout_and_soon_nothing(failing: Gateway) -> None:
    failing.processes.pause(PROCESSOR)
    before, began = failing.envoy.count("message_timeouts"), time.monotonic()
    assert failing.sent(VALID) == VALID
    assert MESSAGE_TIMEOUT_SECONDS <= time.monotonic() - began < 2 * MESSAGE_TIMEOUT_SECONDS
    assert failing.envoy.count("message_timeouts") == before + 1
    assert failing.thought() == THOUGHT

    def unused() -> bool:
        timeouts = failing.envoy.count("message_timeouts")
        assert failing.thought() == THOUGHT
        return failing.envoy.count("message_timeouts") == timeouts

    wait_until(unused, timeout_seconds=30.0, what="Envoy to find out that the processor hangs")


# ---------------------------------------------------------------- what is installed


def test_envoy_takes_the_example_as_it_is() -> None:
    command = [str(ensure_envoy()), "--mode", "validate", "-c", str(INTEGRATION / "envoy.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_that_was_installed_starts_by_itself() -> None:
    assert startup_code(ensure_processor().parents[1]) == []
