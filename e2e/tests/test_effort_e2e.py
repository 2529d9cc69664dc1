"""Thinking less, end to end: a shortage is foreseen, the gateway's document says so, and stops when nobody renews it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from longtail_e2e import Cluster, ProcessGroup, Target, wait_until
from longtail_e2e.litellm import LiteLlm, ensure_litellm, mounted_account, thinking_engine
from longtail_e2e.operator import OPERATOR
from longtail_e2e.pages import page, served
from longtail_e2e.ports import LOOPBACK, PortReservation
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

VALID_SECONDS = 30
THOUGHT = 9000
"""Tokens that the engine behind the proxy thinks unless it is told to think less: more than any level allows."""


def document(world: World, name: str = "r1") -> dict[str, Any]:
    """What a gateway would read."""
    config_map = world.get("configmap", f"{name}-effort")
    found: dict[str, Any] = json.loads(config_map["data"]["effort.json"])
    return found


def is_told(world: World) -> bool:
    """Whether anything is published in the namespace."""
    labelled = ("-l", "longtail.dev/effort", "-o", "name")
    return bool(world.cluster.kubectl("get", "configmaps", "-n", world.namespace, *labelled))


def first_document(world: World) -> dict[str, Any]:
    """What a gateway reads first: a tick that is cut short may tell the resource sooner than the gateway."""
    world.wait(lambda: is_told(world), "the gateway to be told", seconds=40)
    return document(world)


def level(world: World) -> str | None:
    effort = world.get("rsv")["status"].get("effort")
    return effort["level"] if effort else None


def thought(proxy: LiteLlm, **fields: Any) -> int:
    """Tokens of the thought that a request behind the proxy gets."""
    answer = proxy.ask("r1", key=proxy.key, **fields)
    assert answer.status_code == 200, answer.text
    tokens: int = answer.json()["usage"]["completion_tokens_details"]["reasoning_tokens"]
    return tokens


@pytest.fixture
def gateway(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[[str], LiteLlm]]:
    """Start the real LiteLLM proxy with the hook, before one engine, reading a ConfigMap from the API server."""
    processes, ports = ProcessGroup(tmp_path / "processes"), PortReservation()
    program = ensure_litellm()

    def start(config_map: str) -> LiteLlm:
        engine = ports.take()
        processes.start(
            thinking_engine("engine", engine, "--speed=400", f"--reasoning-tokens={THOUGHT}", "--answer-tokens=50")
        )
        folder, account = tmp_path / "proxy", tmp_path / "account"
        folder.mkdir()
        account.mkdir()
        proxy = LiteLlm(program, name="proxy", port=ports.take(), directory=folder)
        host, _, port = cluster.api_url.removeprefix("https://").rpartition(":")
        processes.start(
            proxy.command(
                models={
                    "r1": {"model": "hosted_vllm/r1", "api_base": f"http://{LOOPBACK}:{engine}/v1", "api_key": "none"}
                },
                environment={
                    "KUBERNETES_SERVICE_HOST": host,
                    "KUBERNETES_SERVICE_PORT": port,
                    "LONGTAIL_EFFORT_ACCOUNT": str(
                        mounted_account(cluster, config_map.split("/", maxsplit=1)[0], account)
                    ),
                    "LONGTAIL_EFFORT_CONFIGMAPS": config_map,
                    "LONGTAIL_EFFORT_POLL_SECONDS": "1",
                },
            )
        )
        return proxy

    yield start
    processes.stop_all()
    ports.release()


def test_a_shortage_asks_the_gateway_for_less_thinking_until_it_is_over(world: World) -> None:
    world.deploy(ready_seconds=2.0)
    world.serve(
        maxReplicas=2,
        gateway={"model": "deepseek-r1"},
        effort={
            "policy": "Publish",
            "dwellSeconds": 3,
            "validSeconds": VALID_SECONDS,
            "classes": [{"name": "premium", "lowestLevel": "medium"}],
        },
    )
    world.wait_for_condition("Ready", "True")
    name = world.service()
    world.engines.rate(name, 2.0)
    world.operator.wait_for_ticks(5)
    assert world.condition("EffortReduced")["reason"] == "UsualEffort"
    assert level(world) == "high"
    assert not is_told(world)

    # More than two replicas can do at any level: far down, whatever the lengths.
    world.engines.rate(name, 120.0)
    reduced = world.wait_for_condition("EffortReduced", "True")
    assert reduced["reason"] == "LessThinking"
    said = first_document(world)
    assert said["service"] == f"{world.namespace}/r1"
    assert said["model"] == "deepseek-r1"
    assert said["level"] in {"medium", "low", "minimal"}
    assert said["thinkingTokens"] <= 8192
    assert said["classes"]["premium"]["level"] == "medium"
    left = datetime.fromisoformat(said["validUntil"]) - datetime.now(UTC)
    assert 0 < left.total_seconds() <= VALID_SECONDS
    labels = {"namespace": world.namespace, "name": "r1"}
    world.wait(
        lambda: (world.operator.value("longtail_effort_level", **labels) or 0) >= 1,
        "the gauge of the level",
        seconds=40,
    )
    assert (world.operator.value("longtail_effort_thinking_tokens", **labels) or 0) <= 8192
    owners = world.get("configmap", "r1-effort")["metadata"]["ownerReferences"]
    assert [owner["kind"] for owner in owners] == ["ReasoningServing"]
    # Renewed while it lasts, at a third of its life.
    world.wait(lambda: document(world)["validUntil"] > said["validUntil"], "a renewal", seconds=VALID_SECONDS)

    world.engines.rate(name, 0.5)
    world.wait(lambda: level(world) == "high", "the usual level again", seconds=120)
    world.wait(lambda: document(world)["thinkingTokens"] is None, "the gateway to be told of it", seconds=40)
    assert world.condition("EffortReduced")["status"] == "False"
    events = world.cluster.kubectl("get", "events", "-n", world.namespace)
    assert "EffortReduced is True: level " in events, events


@contextmanager
def counters(world: World, work: Mapping[str, int]) -> Iterator[None]:
    """A LiteLLM whose counters grow, scraped: each second 50 answers to each class, of so many tokens."""
    began = time.monotonic()

    def text(_: str) -> str:
        answers = 50 * (1 + int(time.monotonic() - began))
        lines = []
        for name, tokens in work.items():
            labels = f'requested_model="deepseek-r1",team="{name}"'
            lines += [
                f"litellm_request_total_latency_metric_count{{{labels}}} {answers}",
                f"litellm_output_tokens_metric_total{{{labels}}} {tokens * answers}",
            ]
        return page(*lines)

    with served(text) as url:
        try:
            world.cluster.prometheus.set_targets([Target(url=f"{url}/", labels={})])
            yield
        finally:
            world.cluster.prometheus.set_targets([])


def test_those_who_take_the_most_and_matter_the_least_are_asked_alone(world: World) -> None:
    world.deploy(ready_seconds=2.0)
    world.serve(
        maxReplicas=2,
        gateway={"model": "deepseek-r1", "classLabel": "team"},
        effort={
            "policy": "Publish",
            "dwellSeconds": 3,
            "classes": [
                {"name": "premium", "lowestLevel": "medium", "priority": 1},
                {"name": "batch", "lowestLevel": "minimal", "priority": -1},
            ],
        },
    )
    world.wait_for_condition("Ready", "True")
    name = world.service()
    world.engines.rate(name, 2.0)
    with counters(world, {"batch": 100_000, "premium": 10, "somebody": 10}):
        labels = {"namespace": world.namespace, "name": "r1"}
        share = {**labels, "class": "batch"}
        world.wait(
            lambda: (world.operator.value("longtail_class_work_ratio", **share) or 0) > 0.95,
            "the class with most of the work",
            seconds=60,
        )

        def told() -> bool:
            """Figures of status are up to a minute older than the metrics."""
            classes: list[dict[str, Any]] = world.get("rsv")["status"].get("classes") or []
            return len(classes) == 4 and (classes[0]["name"], classes[0]["workPercent"] >= 95) == ("batch", True)

        world.wait(told, "the classes in status", seconds=90)
        world.engines.rate(name, 120.0)
        reduced = world.wait_for_condition("EffortReduced", "True")
        assert reduced["message"].startswith("level high (batch: ")
        said = first_document(world)
        assert (said["level"], said["classes"]["premium"]["level"]) == ("high", "high")
        assert said["classes"]["batch"]["thinkingTokens"] <= 8192
        apart = world.get("rsv")["status"]["effort"]["classes"]
        assert {each["name"]: each["level"] == "high" for each in apart} == {"premium": True, "batch": False}


def test_a_level_that_is_recommended_is_shown_and_not_published(world: World) -> None:
    world.deploy(ready_seconds=2.0)
    world.serve(maxReplicas=1, effort={"policy": "Recommend", "dwellSeconds": 3})
    world.wait_for_condition("Ready", "True")
    world.engines.rate(world.service(), 100.0)
    assert world.wait_for_condition("EffortReduced", "True")["reason"] == "LessThinkingRecommended"
    world.operator.wait_for_ticks(3)
    assert not is_told(world)


def test_a_request_behind_litellm_thinks_less_until_what_a_dead_operator_published_runs_out(
    world: World, gateway: Callable[[str], LiteLlm]
) -> None:
    """The last test of the module: its operator dies."""
    world.deploy(ready_seconds=2.0)
    world.serve(
        maxReplicas=1,
        gateway={"model": "r1"},
        effort={"policy": "Publish", "dwellSeconds": 3, "validSeconds": VALID_SECONDS},
    )
    world.wait_for_condition("Ready", "True")
    proxy = gateway(f"{world.namespace}/r1-effort")
    assert thought(proxy) == THOUGHT
    world.engines.rate(world.service(), 100.0)
    world.wait_for_condition("EffortReduced", "True")
    world.wait(lambda: thought(proxy) < THOUGHT, "a shorter thought", seconds=60)
    said = document(world)
    assert thought(proxy) == said["thinkingTokens"]
    # Never above the client's own wish.
    assert thought(proxy, thinking_token_budget=100) == 100

    world.cluster.processes.stop(OPERATOR)
    last = document(world)
    ends = datetime.fromisoformat(last["validUntil"])
    assert thought(proxy) == last["thinkingTokens"]
    wait_until(
        lambda: datetime.now(UTC) > ends,
        timeout_seconds=VALID_SECONDS + 5,
        what="the end of the level",
        interval_seconds=1.0,
    )
    assert document(world) == last
    assert thought(proxy) == THOUGHT
