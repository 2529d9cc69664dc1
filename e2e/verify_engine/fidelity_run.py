"""A timetable of requests, sent to a running vLLM, and what vLLM said of itself meanwhile."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import aiohttp

from verify_engine.environment import VOCABULARY
from verify_engine.serving import MODEL

SAMPLE_SECONDS: Final = 0.5
_SERIES: Final = {
    "running_requests": "vllm:num_requests_running",
    "waiting_requests": "vllm:num_requests_waiting",
    "kv_ratio": "vllm:kv_cache_usage_perc",
    "generated_tokens": "vllm:generation_tokens_total",
    "finished_tokens": "vllm:request_generation_tokens_sum",
    "finished_requests": "vllm:request_generation_tokens_count",
    "wait_seconds_sum": "vllm:request_queue_time_seconds_sum",
    "steps": "vllm:iteration_tokens_total_count",
    "step_tokens": "vllm:iteration_tokens_total_sum",
}
_LINE: Final = re.compile(r"^(vllm:\w+)\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Planned:
    """One request of the timetable."""

    at_seconds: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Answered:
    """One request as its client saw it; seconds since the run began."""

    sent_seconds: float
    answered_seconds: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of the metrics page, counters since the run began."""

    at_seconds: float
    running_requests: float
    waiting_requests: float
    kv_ratio: float
    generated_tokens: float
    finished_tokens: float
    finished_requests: float
    wait_seconds_sum: float
    steps: float
    step_tokens: float


@dataclass(frozen=True, slots=True)
class Recording:
    """All of a run."""

    slots: int
    block_tokens: int
    kv_capacity_tokens: int
    answered: tuple[Answered, ...]
    samples: tuple[Sample, ...]

    def write(self, path: Path) -> None:
        """Keep it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Recording:
        """What ``write`` kept."""
        content = json.loads(path.read_text())
        return cls(
            slots=content["slots"],
            block_tokens=content["block_tokens"],
            kv_capacity_tokens=content["kv_capacity_tokens"],
            answered=tuple(Answered(**one) for one in content["answered"]),
            samples=tuple(Sample(**one) for one in content["samples"]),
        )


def timetable(
    *, seconds: float, tokens_per_second: float, load: float, burst_seconds: float, seed: int
) -> tuple[Planned, ...]:
    """Requests that ask for ``load`` x ``tokens_per_second`` on average, half of them steadily, half in bursts.

    Output lengths are lognormal, median 150 and sigma 1.1 (the 99th percentile is 167 times the 1st), at most 4,000;
    prompts 4 to 400 tokens. A burst is one second long and comes every ``burst_seconds``: the queue that it leaves
    drains before the next, so that a wait is a matter of the engine's pace and not of how near the load is to 1.
    """
    rng = random.Random(seed)  # noqa: S311  # a workload, not a secret
    planned: list[Planned] = []
    for spread_seconds in (burst_seconds, 1.0):
        budget_tokens = 0.0
        for number in range(int(seconds / burst_seconds)):
            budget_tokens += load / 2 * tokens_per_second * burst_seconds
            while budget_tokens > 0:
                output = min(4000, max(2, round(150 * math.exp(1.1 * rng.gauss(0.0, 1.0)))))
                prompt = min(400, max(4, round(40 * math.exp(rng.gauss(0.0, 1.0)))))
                at = number * burst_seconds + rng.random() * spread_seconds
                planned.append(Planned(at_seconds=at, prompt_tokens=prompt, output_tokens=output))
                budget_tokens -= output
    return tuple(sorted(planned, key=lambda request: request.at_seconds))


async def measured_rate(url: str, *, slots: int) -> float:
    """Tokens per second with every slot taken: two rounds of equal requests, after a warm-up."""
    async with _session() as session:
        for output_tokens in (50, 300):
            began = time.monotonic()
            await asyncio.gather(
                *(_ask(session, url, Planned(0.0, 30, output_tokens), random.Random(i)) for i in range(2 * slots))  # noqa: S311
            )
    return 2 * slots * output_tokens / (time.monotonic() - began)


async def record(url: str, planned: Sequence[Planned], *, slots: int, block_tokens: int, seed: int) -> Recording:
    """Send the timetable and sample until all is answered."""
    rng = random.Random(seed)  # noqa: S311
    samples: list[Sample] = []
    async with _session() as session:
        page = await _page(session, url)
        zero, began = _values(page), time.monotonic()

        async def client(request: Planned) -> Answered:
            own = random.Random(rng.random())  # noqa: S311
            await asyncio.sleep(max(0.0, began + request.at_seconds - time.monotonic()))
            sent = time.monotonic() - began
            await _ask(session, url, request, own)
            return Answered(sent, time.monotonic() - began, request.prompt_tokens, request.output_tokens)

        async def sampler() -> None:
            while True:
                values, at = _values(await _page(session, url)), time.monotonic() - began
                counted = {n: v - (0.0 if n in _LEVELS else zero[n]) for n, v in values.items()}
                samples.append(Sample(at_seconds=at, **counted))
                await asyncio.sleep(SAMPLE_SECONDS - (time.monotonic() - began) % SAMPLE_SECONDS)

        sampling = asyncio.create_task(sampler())
        answered = await asyncio.gather(*(client(request) for request in planned))
        await asyncio.sleep(2 * SAMPLE_SECONDS)
        sampling.cancel()
    stated = re.search(r'kv_cache_size_tokens="(\d+)"', page)
    if stated is None:
        raise ValueError("vLLM's page does not say kv_cache_size_tokens")
    return Recording(slots, block_tokens, int(stated.group(1)), tuple(answered), tuple(samples))


_LEVELS: Final = frozenset({"running_requests", "waiting_requests", "kv_ratio"})


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=900), connector=aiohttp.TCPConnector(limit=0, force_close=True)
    )


async def _page(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(f"{url}/metrics") as response:
        response.raise_for_status()
        return await response.text()


def _values(page: str) -> dict[str, float]:
    found = {name: float(value) for name, value in _LINE.findall(page)}
    return {name: found[series] for name, series in _SERIES.items()}


async def _ask(session: aiohttp.ClientSession, url: str, request: Planned, rng: random.Random) -> None:
    # One answer at the end: streaming costs the two cores that the engine needs as much as the engine itself.
    body = {
        "model": MODEL,
        "prompt": [rng.randrange(2, VOCABULARY) for _ in range(request.prompt_tokens)],
        "max_tokens": request.output_tokens,
        "ignore_eos": True,
    }
    async with session.post(f"{url}/v1/completions", json=body) as response:
        response.raise_for_status()
        usage = (await response.json())["usage"]
        if usage["completion_tokens"] != request.output_tokens:
            raise ValueError(f"asked for {request.output_tokens} tokens, got {usage['completion_tokens']}")
