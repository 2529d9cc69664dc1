"""Bounded load on a loopback server: requests of drawn lengths, some of them given up by their client."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from verify_engine.environment import VOCABULARY


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. The engine is told to ignore the end of text, so it writes exactly ``output_tokens``."""

    prompt_tokens: int
    output_tokens: int
    leave_after_tokens: int | None = None
    """The client hangs up after so many; None for never."""
    leave_after_seconds: float | None = None
    """The client hangs up after so long, whatever came."""


@dataclass(frozen=True, slots=True)
class Got:
    """What became of it."""

    ask: Ask
    received_tokens: int
    finished: bool


def drawn(count: int, *, seed: int, median_tokens: float = 250.0, cap_tokens: int = 3000) -> list[Ask]:
    """Lognormal output lengths (sigma 0.8, as wide as R1's core), prompts of 4 to 64 tokens."""
    rng = random.Random(seed)  # noqa: S311  # a workload, not a secret
    return [
        Ask(
            prompt_tokens=rng.randint(4, 64),
            output_tokens=min(cap_tokens, max(1, round(median_tokens * rng.lognormvariate(0.0, 0.8)))),
        )
        for _ in range(count)
    ]


async def send(url: str, model: str, asks: Sequence[Ask], *, seed: int) -> list[Got]:
    """Send all at once and wait until each is answered or given up."""
    rng = random.Random(seed)  # noqa: S311
    prompts = [[rng.randrange(2, VOCABULARY) for _ in range(ask.prompt_tokens)] for ask in asks]
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        return await asyncio.gather(
            *(_ask(session, url, model, ask, prompt) for ask, prompt in zip(asks, prompts, strict=True))
        )


async def _ask(session: aiohttp.ClientSession, url: str, model: str, ask: Ask, prompt: list[int]) -> Got:
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": ask.output_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    received = 0
    try:
        async with asyncio.timeout(ask.leave_after_seconds):
            async with session.post(f"{url}/v1/completions", json=body) as response:
                response.raise_for_status()
                async for line in response.content:
                    text = line.decode().removeprefix("data: ").strip()
                    if not text:
                        continue
                    if text == "[DONE]":
                        return Got(ask, received, finished=True)
                    usage = json.loads(text).get("usage") or {}
                    received = max(received, int(usage.get("completion_tokens", 0)))
                    if ask.leave_after_tokens is not None and received >= ask.leave_after_tokens:
                        response.close()  # cuts the connection, as a client that goes away
                        return Got(ask, received, finished=False)
    except TimeoutError:
        pass
    return Got(ask, received, finished=False)
