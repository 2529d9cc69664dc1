"""A real vLLM, scraped by a real Prometheus, read by our vocabulary: every signal against what clients know."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import requests

from longtail.demand.observation import MISSING, Observation
from longtail_e2e import ProcessGroup, Prometheus, Target, ensure_components
from longtail_e2e.ports import LOOPBACK, PortReservation
from longtail_e2e.progress import Progress
from verify_engine.environment import Environment, ensure_environment
from verify_engine.load import Ask, Got, drawn, send
from verify_engine.report import Report
from verify_engine.serving import MODEL, vllm_command
from verify_engine.watch import NAMESPACE, POD, Sums, Watch

SLOTS = 16
_BLOCK_TOKENS = 128
_PROMPT_CAP_TOKENS = 64
_SIGNALS = (
    "running_requests",
    "waiting_requests",
    "kv_used_tokens",
    "kv_capacity_tokens",
    "first_tokens",
    "generated_tokens",
    "prompt_tokens",
    "preemptions",
    "attained_tokens",
    "finished_output_tokens",
    "queue_wait_seconds",
    "first_token_seconds",
)
"""What vLLM can tell. It has no arrival counter, no slots and no reasoning share."""


def check_vllm(*, progress: Progress) -> Report:
    """Set up, start, drive and compare. Some minutes, most of them the first set-up."""
    environment = ensure_environment(progress=progress)
    report = Report("vllm", environment.vllm_version)
    with _servers(environment, progress) as (processes, engine_url, prometheus_url):
        asyncio.run(_verify(report, processes, engine_url, prometheus_url, progress))
    return report


@contextlib.contextmanager
def _servers(environment: Environment, progress: Progress) -> Iterator[tuple[ProcessGroup, str, str]]:
    components = ensure_components(progress=progress)
    with tempfile.TemporaryDirectory(prefix="longtail-verify-") as name:
        directory = Path(name)
        ports, processes = PortReservation(), ProcessGroup(directory)
        try:
            port = ports.take()
            url = f"http://{LOOPBACK}:{port}"
            progress("vllm", "starting the engine")
            processes.start(vllm_command(environment, port=port, slots=SLOTS))
            progress("vllm", f"serves on {url}", done=True)
            prometheus = Prometheus(
                components=components,
                processes=processes,
                ports=ports,
                directory=directory / "prometheus",
                scrape_interval_seconds=1.0,
            )
            prometheus.start()
            prometheus.set_targets([Target(url=f"{url}/metrics", labels={"namespace": NAMESPACE, "pod": POD})])
            yield processes, url, prometheus.url
        finally:
            processes.stop_all()
            ports.release()


async def _verify(
    report: Report, processes: ProcessGroup, engine_url: str, prometheus_url: str, progress: Progress
) -> None:
    watch = Watch(prometheus_url)
    try:
        progress("verify", "an idle engine")
        await _idle(report, watch, engine_url)
        progress("verify", "48 requests over 16 slots")
        await _steady(report, watch, engine_url)
        progress("verify", "clients that give up")
        await _given_up(report, watch, engine_url)
        progress("verify", "a restart")
        await _restart(report, watch, processes, engine_url)
        report.equal("queries that failed", expected=[], seen=[str(failure.error) for failure in watch.failures])
        progress("verify", "vLLM is compared", done=True)
    finally:
        watch.close()


async def _idle(report: Report, watch: Watch, engine_url: str) -> None:
    await watch.until(lambda seen, _: seen.running_requests.fresh, what="the first sample")
    seen = await watch.until(lambda seen, _: seen.first_tokens.fresh, what="the first increase")
    missing = [name for name in _SIGNALS if getattr(seen, name) in (None, MISSING)]
    report.equal("signals of an idle engine that are missing", expected=[], seen=missing)
    idle = {name: getattr(seen, name).value for name in ("running_requests", "waiting_requests", "kv_used_tokens")}
    report.equal("levels of an idle engine", expected=dict.fromkeys(idle, 0.0), seen=idle)
    page = (await asyncio.to_thread(requests.get, f"{engine_url}/metrics", timeout=10.0)).text
    stated = re.search(r'kv_cache_size_tokens="(\d+)"', page)
    report.equal(
        "KV capacity in tokens",
        expected=float(stated.group(1)) if stated else None,
        seen=seen.kv_capacity_tokens.value,
    )
    report.figures["kv_capacity_tokens"] = seen.kv_capacity_tokens.value


async def _steady(report: Report, watch: Watch, engine_url: str) -> None:
    """Nobody gives up: first tokens are starts, and what was generated and not finished is in flight."""
    watch.start_again()
    asks = drawn(48, seed=1)
    async with watch.running():
        got = await send(engine_url, MODEL, asks, seed=1)
    end = await watch.until(lambda seen, sums: _quiet(seen) and sums.finished >= len(got), what="all finished")
    sums, busy = watch.sums, [tick for tick in watch.ticks if tick.seen.running_requests.value]
    report.equal("requests that started, by first tokens", expected=len(asks), seen=round(sums.first_tokens))
    report.equal("requests that finished", expected=len(asks), seen=round(sums.finished))
    report.equal("tokens written", expected=sum(ask.output_tokens for ask in asks), seen=round(sums.generated_tokens))
    report.equal(
        "prompt tokens of finished requests",
        expected=sum(ask.prompt_tokens for ask in asks),
        seen=round(sums.prompt_tokens),
    )
    report.equal("requests by output length", expected=_by_length(asks, sums), seen=_rounded(sums.finished_by_length))
    report.equal("requests by queue wait", expected=len(asks), seen=round(sums.queue_waits))
    report.equal("requests by time to first token", expected=len(asks), seen=round(sums.first_token_waits))
    report.equal("preemptions", expected=0, seen=round(sums.preemptions))
    report.equal("tokens in flight when all is quiet", expected=0.0, seen=end.attained_tokens.value)
    peak = max(tick.seen.running_requests.value or 0.0 for tick in busy)
    report.equal("most requests that ran at once", expected=float(SLOTS), seen=peak)
    # Started and not finished is what runs; a request that runs its prefill has no first token yet.
    gaps = [(tick.seen.running_requests.value or 0.0) - (tick.first_tokens - tick.finished) for tick in busy]
    report.holds(
        "running - (first tokens - finished), tick by tick",
        expected="0, or up to the slots while prompts are prefilled",
        seen=gaps,
        holds=all(0 <= gap <= SLOTS for gap in gaps),
    )
    report.holds(
        "KV tokens used against tokens in flight, tick by tick",
        expected="between in flight and in flight + running * (longest prompt + one block)",
        seen=[(tick.seen.kv_used_tokens.value, tick.seen.attained_tokens.value) for tick in busy],
        holds=all(_kv_is_plausible(tick.seen) for tick in busy),
    )
    report.figures["steady"] = {
        "requests": len(asks),
        "ticks_under_load": len(busy),
        "ticks_where_started_minus_finished_is_running": sum(gap == 0 for gap in gaps),
        "largest_waiting": max(tick.seen.waiting_requests.value or 0.0 for tick in busy),
        "largest_tokens_in_flight": max(tick.seen.attained_tokens.value or 0.0 for tick in busy),
        "largest_kv_used_tokens": max(tick.seen.kv_used_tokens.value or 0.0 for tick in busy),
        "at_largest_in_flight": _moment(max(busy, key=lambda tick: tick.seen.attained_tokens.value or 0.0).seen),
    }


async def _given_up(report: Report, watch: Watch, engine_url: str) -> None:
    """Of 40 requests, 6 clients leave in the middle of their answer and 6 before its first token."""
    watch.start_again()
    asks = drawn(40, seed=2)
    # The first 16 sent get the slots: six of them leave after 50 tokens, of at least 600.
    for number in range(6):
        asks[number] = replace(asks[number], output_tokens=600, leave_after_tokens=50)
    for number in range(34, 40):
        asks[number] = replace(asks[number], leave_after_seconds=0.5)
    async with watch.running():
        got = await send(engine_url, MODEL, asks, seed=2)
    finished = [one for one in got if one.finished]
    end = await watch.until(lambda seen, sums: _quiet(seen) and sums.finished >= len(finished), what="all quiet")
    sums = watch.sums
    cut = [one for one in got if not one.finished and one.received_tokens]
    unseen = [one for one in got if not one.finished and not one.received_tokens]
    report.equal("an abort is not a finish", expected=len(finished), seen=round(sums.finished))
    report.holds(
        "requests that started, by first tokens",
        expected=f"{len(finished) + len(cut)} and up to {len(unseen)} more whose client left just before",
        seen=round(sums.first_tokens),
        holds=len(finished) + len(cut) <= sums.first_tokens <= len(got),
    )
    left_over = end.attained_tokens.value or 0.0
    written = sum(one.ask.output_tokens for one in finished)
    report.equal(
        "generated - finished, for good", expected=round(sums.generated_tokens) - written, seen=round(left_over)
    )
    received = sum(one.received_tokens for one in cut)
    report.holds(
        "tokens that aborts leave behind",
        expected=f"at least the {received} that their clients received",
        seen=left_over,
        holds=left_over >= received > 0,
    )
    report.figures["given_up"] = {
        "requests": len(got),
        "finished": len(finished),
        "cut_in_the_middle": len(cut),
        "left_before_a_token": len(unseen),
        "first_tokens": round(sums.first_tokens),
        "generated_tokens": round(sums.generated_tokens),
        "finished_tokens": written,
        "left_over_tokens": left_over,
        "received_by_those_who_left": received,
    }


async def _restart(report: Report, watch: Watch, processes: ProcessGroup, engine_url: str) -> None:
    command = processes.stop("vllm")
    assert command is not None
    down = await watch.until(lambda seen, _: seen.running_requests == MISSING, what="silence of the engine")
    report.equal("running requests of a pod that is down", expected=None, seen=down.running_requests.value)
    await asyncio.to_thread(processes.start, command)
    await watch.until(lambda seen, _: seen.running_requests.fresh, what="the engine to report again")
    await watch.until(lambda seen, _: seen.first_tokens.fresh, what="an increase after the restart")
    watch.start_again()
    asks: Sequence[Ask] = drawn(8, seed=3)
    async with watch.running():
        got: list[Got] = await send(engine_url, MODEL, asks, seed=3)
    await watch.until(lambda seen, sums: _quiet(seen) and sums.finished >= len(got), what="all finished")
    report.equal(
        "tokens written after a restart",
        expected=sum(ask.output_tokens for ask in asks),
        seen=round(watch.sums.generated_tokens),
    )


def _quiet(seen: Observation) -> bool:
    return seen.running_requests.value == 0.0 and seen.waiting_requests.value == 0.0


def _kv_is_plausible(seen: Observation) -> bool:
    used, in_flight = seen.kv_used_tokens.value, seen.attained_tokens.value
    running = seen.running_requests.value
    if used is None or in_flight is None or running is None:
        return False
    return in_flight <= used <= in_flight + running * (_PROMPT_CAP_TOKENS + _BLOCK_TOKENS)


def _moment(seen: Observation) -> dict[str, float | None]:
    names = ("running_requests", "waiting_requests", "kv_used_tokens", "attained_tokens")
    return {name: getattr(seen, name).value for name in names}


def _by_length(asks: Sequence[Ask], sums: Sums) -> dict[str, int]:
    bounds = sorted(sums.finished_by_length)
    counts = dict.fromkeys(bounds, 0)
    for ask in asks:
        counts[bounds[bisect_left(bounds, ask.output_tokens)]] += 1
    return {f"{bound:g}": count for bound, count in counts.items()}


def _rounded(counts: dict[float, float]) -> dict[str, int]:
    return {f"{bound:g}": round(count) for bound, count in sorted(counts.items())}
