"""The real LiteLLM proxy with our hook, before a simulated engine: what is published, is applied, and nothing else is.

The engine thinks 4,000 tokens and answers 300, unless it is told to think less. So the length of a thought that comes
back says which budget the request carried.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from longtail.demand.observation import Quality
from longtail.policy.fleet import ServiceKey
from longtail.signals.observe import ServiceSignals
from longtail.signals.reader import SignalReader
from longtail.signals.sources import MetricsSource
from longtail_e2e import Cluster, ProcessGroup, Target, wait_until
from longtail_e2e.litellm import LiteLlm, ensure_litellm, mounted_account, settings_for_keys, thinking_engine
from longtail_e2e.ports import LOOPBACK, PortReservation
from longtail_e2e.published import WISHES, Published, document

THOUGHT, ANSWER = 4000, 300
SERVICE = "inference/r1"
NAMESPACE, FROM_API = "litellm-test", "litellm-test/r1"
SPEED = 400
"""Of the engine: a thought of 4,000 tokens takes 0.15 s."""
LENGTHS = (f"--speed={SPEED}", f"--reasoning-tokens={THOUGHT}", f"--answer-tokens={ANSWER}")
KEYS: Mapping[str, Mapping[str, str]] = {"sk-plain": {}, "sk-premium": {"longtail_class": "premium"}}

pytestmark = pytest.mark.e2e


class Gateway:
    """The proxy, its engine and what is published for it."""

    def __init__(self, proxy: LiteLlm, engine: str, published: Published, log: Path) -> None:
        self.proxy, self.engine, self.published, self.log = proxy, engine, published, log

    def thought(self, model: str = "r1", **fields: Any) -> int:
        """Tokens of a thought; the answer behind it is always whole."""
        key = fields.pop("key", "sk-plain")
        answer = self.proxy.ask(model, key=key, **fields)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        usage, (choice,) = body["usage"], body["choices"]
        thought: int = usage["completion_tokens_details"]["reasoning_tokens"]
        assert choice["finish_reason"] == "stop"
        assert len(choice["message"]["content"].split()) == ANSWER
        assert len((choice["message"].get("reasoning_content") or "").split()) == thought
        assert usage["completion_tokens"] == thought + ANSWER
        return thought


@pytest.fixture(scope="module")
def litellm() -> Path:
    return ensure_litellm()


@pytest.fixture(scope="module")
def ports() -> Iterator[PortReservation]:
    reserved = PortReservation()
    yield reserved
    reserved.release()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessGroup]:
    group = ProcessGroup(tmp_path_factory.mktemp("litellm"))
    yield group
    group.stop_all()


@pytest.fixture(scope="module")
def started(
    cluster: Cluster,
    litellm: Path,
    ports: PortReservation,
    processes: ProcessGroup,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """Two engines, of which one has no reasoning parser, and one that says it is SGLang."""
    urls = {}
    for name, flags in {"engine": (), "without-parser": ("--no-budgets",), "sglang": ("--engine=sglang",)}.items():
        number = ports.take()
        processes.start(thinking_engine(name, number, *LENGTHS, *flags))
        urls[name] = f"http://{LOOPBACK}:{number}"
    folder = tmp_path_factory.mktemp("proxy")
    published = Published(tmp_path_factory.mktemp("published") / "effort.json")
    proxy = LiteLlm(litellm, name="proxy", port=ports.take(), directory=folder)

    def behind(engine: str, provider: str = "hosted_vllm", **more: object) -> dict[str, object]:
        return {"model": f"{provider}/r1", "api_base": f"{urls[engine]}/v1", "api_key": "none", **more}

    host, _, port = cluster.api_url.removeprefix("https://").rpartition(":")
    here = {"service": SERVICE}
    processes.start(
        proxy.command(
            models={
                "r1": behind("engine"),
                "r1-openai": behind("engine", "openai"),
                "r1-elsewhere": behind("engine", "openai", additional_drop_params=["thinking_token_budget"]),
                "r1-without-parser": behind("without-parser"),
                "r1-sglang": behind("sglang", "openai"),
                "r1-cut": behind("engine"),
                "by-its-own-name": behind("engine"),
                "other": behind("engine"),
                "from-api": behind("engine"),
                "by-class": behind("engine"),
            },
            environment={
                "KUBERNETES_SERVICE_HOST": host,
                "KUBERNETES_SERVICE_PORT": port,
                "LONGTAIL_EFFORT_ACCOUNT": str(mounted_account(cluster, NAMESPACE, tmp_path_factory.mktemp("account"))),
                "LONGTAIL_EFFORT_CONFIGMAPS": f"{NAMESPACE}/r1-effort",
                "LONGTAIL_EFFORT_POLL_SECONDS": "1",
                "LONGTAIL_EFFORT_PATH": str(published.file.parent),
                "LONGTAIL_EFFORT_CLASS_HEADER": "X-Class",
                "LONGTAIL_EFFORT_MODELS": json.dumps(
                    dict.fromkeys(("r1", "r1-openai", "r1-elsewhere", "r1-without-parser"), here)
                    | {"from-api": {"service": FROM_API}}
                    | {"r1-sglang": here | {"engine": "sglang"}}
                    | {"r1-cut": here | {"engine": "max_tokens", "answer_tokens": 200}}
                ),
            },
            callbacks=("longtail_effort.hook", "prometheus"),
            general_settings=settings_for_keys(folder, KEYS),
            metadata_labels=["longtail_class"],
        )
    )
    yield Gateway(proxy, urls["engine"], published, processes.log("proxy"))
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def gateway(started: Gateway) -> Iterator[Gateway]:
    """Nothing is published, before and after."""
    yield started
    started.published.remove()


def test_without_a_document_nothing_changes(gateway: Gateway) -> None:
    answer = gateway.proxy.ask("r1", key="sk-plain")
    assert "x-longtail-effort" not in answer.headers
    assert gateway.thought() == THOUGHT


@pytest.mark.parametrize(
    ("fields", "thought"),
    [
        *(pytest.param(fields, thought, id=name) for name, (fields, thought) in WISHES.items()),
        pytest.param({"extra_body": {"thinking_token_budget": 3000}}, 1024, id="in-extra-body"),
        pytest.param({"extra_body": {"thinking_token_budget": 100}}, 100, id="less-in-extra-body"),
        pytest.param({"thinking": {"type": "enabled", "budget_tokens": 700}}, 700, id="less-in-anthropics-words"),
        pytest.param({"thinking": {"type": "enabled", "budget_tokens": 9000}}, 1024, id="more-in-anthropics-words"),
        pytest.param({"key": "sk-premium"}, 2048, id="a-premium-key"),
        pytest.param({"key": "sk-premium", "thinking_token_budget": 1500}, 1500, id="a-premium-key-that-asks-less"),
        pytest.param({"model": "r1-openai"}, 1024, id="openais-provider-passes-it-on"),
        pytest.param({"model": "r1-elsewhere"}, THOUGHT, id="a-deployment-that-drops-the-field"),
        pytest.param({"model": "r1-sglang"}, 1024, id="sglang"),
        pytest.param({"model": "r1-sglang", "custom_params": {"thinking_budget": 99}}, 99, id="less-on-sglang"),
        pytest.param({"model": "other"}, THOUGHT, id="a-model-that-nobody-publishes-for"),
    ],
)
def test_in_a_shortage_a_request_thinks_as_much_as_it_may(
    gateway: Gateway, fields: dict[str, Any], thought: int
) -> None:
    gateway.published.write(document())
    assert gateway.thought(**fields) == thought


def test_who_is_given_less_is_told(gateway: Gateway) -> None:
    gateway.published.write(document())
    assert gateway.proxy.ask("r1", key="sk-plain").headers["x-longtail-effort"] == "low"
    assert gateway.proxy.ask("r1", key="sk-premium").headers["x-longtail-effort"] == "medium"
    assert "x-longtail-effort" not in gateway.proxy.ask("r1", key="sk-plain", thinking_token_budget=5).headers


def test_a_class_may_be_named_in_a_header_where_that_is_allowed(gateway: Gateway) -> None:
    gateway.published.write(document())
    headers = {"Authorization": "Bearer sk-plain", "X-Class": "premium"}
    body = {"model": "r1", "messages": [{"role": "user", "content": "why"}]}
    answer = requests.post(f"{gateway.proxy.url}/v1/chat/completions", json=body, headers=headers, timeout=60.0)
    assert answer.json()["usage"]["completion_tokens"] == 2048 + ANSWER


def test_a_document_that_names_the_model_needs_no_mapping(gateway: Gateway) -> None:
    gateway.published.write(document(model="by-its-own-name"))
    assert gateway.thought("by-its-own-name") == 1024


def test_a_stream_is_limited_too(gateway: Gateway) -> None:
    gateway.published.write(document())
    answer = gateway.proxy.ask("r1", key="sk-plain", stream=True, stream_options={"include_usage": True})
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    usages = [usage for line in lines if (usage := json.loads(line).get("usage"))]
    assert usages[-1]["completion_tokens"] == 1024 + ANSWER


def test_anthropics_messages_are_limited_too(gateway: Gateway) -> None:
    gateway.published.write(document())
    answer = gateway.proxy.ask("r1", key="sk-plain", path="/v1/messages", max_tokens=20_000)
    assert answer.json()["usage"]["output_tokens"] == 1024 + ANSWER


def test_as_a_last_resort_the_whole_is_cut(gateway: Gateway) -> None:
    gateway.published.write(document(thinkingTokens=THOUGHT))
    answer = gateway.proxy.ask("r1-cut", key="sk-plain").json()
    assert answer["usage"]["completion_tokens"] == THOUGHT + 200
    assert answer["choices"][0]["finish_reason"] == "length"


def test_after_valid_until_the_request_goes_through_unchanged(gateway: Gateway) -> None:
    gateway.published.write(document(seconds=4.0))
    assert gateway.thought() == 1024
    time.sleep(4.0)
    assert gateway.thought() == THOUGHT
    assert "expired r1: inference/r1 says nothing since" in gateway.log.read_text()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("", id="empty"),
        pytest.param('{"service": "inference/r1", "thinkingTok', id="half"),
        pytest.param("[]", id="another-shape"),
        pytest.param(document(thinkingTokens="1024"), id="a-string-for-a-number"),
        pytest.param(document(thinkingTokens=-5), id="below-zero"),
        pytest.param(document(thinkingTokens=True), id="a-boolean"),
        pytest.param(document(validUntil="soon"), id="no-time"),
        pytest.param(document(validUntil="2036-11-27T20:01:00"), id="no-time-zone"),
        pytest.param(document(reasoningEffort=5), id="no-word"),
        pytest.param(document(classes={"premium": 5}), id="a-broken-class"),
    ],
)
def test_a_broken_document_changes_nothing(gateway: Gateway, body: object) -> None:
    gateway.published.write(document())
    assert gateway.thought() == 1024
    gateway.published.write(body)
    assert gateway.thought() == THOUGHT
    assert "broken" in gateway.log.read_text()


def test_what_the_client_writes_wrong_is_the_engines_to_refuse(gateway: Gateway) -> None:
    gateway.published.write(document())
    answer = gateway.proxy.ask("r1", key="sk-plain", thinking_token_budget="many")
    assert answer.status_code == 400
    assert "thinking_token_budget" in answer.text
    assert gateway.thought() == 1024


def test_an_engine_without_a_reasoning_parser_costs_one_request_and_no_more(gateway: Gateway) -> None:
    gateway.published.write(document())
    assert gateway.proxy.ask("r1-without-parser", key="sk-plain").status_code == 400
    assert [gateway.thought("r1-without-parser") for _ in range(3)] == [THOUGHT] * 3
    assert re.search(r"ERROR longtail_effort: refused r1-without-parser: .*--reasoning-parser", gateway.log.read_text())
    assert gateway.thought() == 1024, "the other engine's requests are limited still"


def test_a_client_cannot_switch_the_limits_off_for_others(gateway: Gateway) -> None:
    gateway.published.write(document())
    assert gateway.thought() == 1024
    mark = {"longtail_effort": {"level": "x", "field": "e"}}
    refused = gateway.proxy.ask("r1", key="sk-plain", metadata=mark, max_tokens="thinking_token_budget")
    assert refused.status_code == 400
    assert gateway.thought() == 1024


def test_the_engines_own_metrics_show_shorter_answers(gateway: Gateway) -> None:
    def finished() -> float:
        page = requests.get(f"{gateway.engine}/metrics", timeout=5.0).text
        (line,) = re.findall(r"^vllm:request_generation_tokens_sum\{.*\} (\S+)$", page, re.MULTILINE)
        return float(line)

    before = finished()
    gateway.thought()
    usual = finished()
    gateway.published.write(document())
    gateway.thought()
    assert (usual - before, finished() - usual) == (THOUGHT + ANSWER, 1024 + ANSWER)


# ---------------------------------------------------------------- from the API server


@pytest.fixture
def publish(cluster: Cluster) -> Callable[[object], None]:
    """How the ConfigMap is written, as by the operator."""
    meta = {"name": "r1-effort", "namespace": NAMESPACE}

    def write(body: object) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        cluster.kubectl.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"effort.json": text}}
        )

    return write


def test_the_hook_reads_the_config_map_from_the_api_server_by_itself(
    gateway: Gateway, publish: Callable[[object], None], cluster: Cluster
) -> None:
    def soon(expected: int, what: str) -> None:
        wait_until(lambda: gateway.thought("from-api") == expected, timeout_seconds=15.0, what=what)

    assert gateway.thought("from-api") == THOUGHT, "there is no such ConfigMap yet"
    publish(document(service=FROM_API))
    soon(1024, "the level to be read")
    assert gateway.thought("from-api", key="sk-premium") == 2048
    with cluster.control_plane.stop("kube-apiserver"):
        time.sleep(2.5)
        assert gateway.thought("from-api") == 1024, "what was read is valid for some minutes more"
        assert "unreachable" in gateway.log.read_text()
    publish("{")
    soon(THOUGHT, "a broken document to be read")
    publish(document(service=FROM_API, seconds=8.0))
    soon(1024, "the level to be read again")
    soon(THOUGHT, "the document to expire")
    publish(document(service=FROM_API))
    soon(1024, "the level to be renewed")
    cluster.kubectl("delete", "configmap", "r1-effort", "-n", NAMESPACE)
    soon(THOUGHT, "the ConfigMap to be gone")
    counted = gateway.proxy.metrics()
    for outcome in ("applied", "expired", "missing"):
        assert re.search(rf'longtail_effort_requests_total{{model="from-api",outcome="{outcome}"}} [1-9]', counted), (
            counted
        )


# ---------------------------------------------------------------- to Prometheus


def test_what_each_class_takes_is_read_off_the_proxys_own_metrics(gateway: Gateway, cluster: Cluster) -> None:
    """Through a real Prometheus: names and labels are LiteLLM's, not ours."""
    model = "by-class"
    source = MetricsSource(name="default", url=cluster.prometheus_url, scrape_interval_seconds=15.0)
    service = ServiceSignals(ServiceKey("inference", "r1"), (), gateway_model=model, class_label="longtail_class")
    reader = SignalReader([source])
    tokens = "sum by (longtail_class) (litellm_output_tokens_metric_total{requested_model='by-class'})"

    def ask(**times: int) -> None:
        for name, count in times.items():
            for _ in range(count):
                gateway.thought(model, key=f"sk-{name}")

    def scraped(premium: int, plain: int) -> bool:
        found = {s["metric"].get("longtail_class"): float(s["value"][1]) for s in cluster.prometheus.query(tokens)}
        return found == {each: n * float(THOUGHT + ANSWER) for each, n in (("premium", premium), ("None", plain))}

    cluster.prometheus.set_targets([Target(url=f"{gateway.proxy.url}/metrics/", labels={"namespace": "litellm"})])
    try:
        ask(premium=1, plain=1)  # increase() does not see a first value
        wait_until(lambda: scraped(1, 1), what="a first scrape", timeout_seconds=60.0)
        ask(premium=3, plain=2)
        wait_until(lambda: scraped(4, 3), what="a second scrape", timeout_seconds=60.0)
        reading = asyncio.run(reader.read([service], time.time()))
    finally:
        reader.close()
        cluster.prometheus.set_targets([])
    classes = reading.observations[service.key].classes
    assert list(reading.failures) == []
    assert classes.quality is Quality.FRESH
    assert [each.name for each in classes.counts] == ["premium", ""]
    for each, asked in zip(classes.counts, (3, 2), strict=True):
        assert asked <= each.answers == pytest.approx(each.requests)
        assert each.output_tokens == pytest.approx(each.answers * (THOUGHT + ANSWER))
        assert each.reasoning_tokens == pytest.approx(each.answers * THOUGHT)
