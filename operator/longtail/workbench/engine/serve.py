"""One simulated inference server, as a container of a pod runs it: real requests come in, nothing is computed.

``python -m longtail.workbench.engine.serve --port 8000`` answers as vLLM does::

    POST /v1/completions        {"prompt": "...", "max_tokens": 500, "stream": true}
    POST /v1/chat/completions   {"messages": [...], "thinking_token_budget": 1024}
    GET  /metrics
    GET  /health

A completion has exactly ``max_tokens`` tokens, as with vLLM's ``ignore_eos``; a chat has a thought and an answer of its
own lengths, within the client's limits (``chat``). Both take as long as the engine model says.
A client that hangs up frees its slot. On SIGTERM everything is cut at once, which is vLLM's default.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longtail.workbench.engine.chat import ChatRequest, Draw, Lengths, chunk, completion, drawn, last_chunks
from longtail.workbench.engine.hosting import host, metrics_page
from longtail.workbench.engine.pool import Pool
from longtail.workbench.engine.request import Outcome, Recorder, Request
from longtail.workbench.engine.service import ServiceDefinition

TICK_SECONDS = 0.05
CHUNK_SECONDS = 0.5
_POD = "self"


class CompletionRequest(BaseModel):
    """What is read of a request; the rest of the API's fields are taken and ignored."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(default="", max_length=1_000_000)
    max_tokens: int = Field(default=16, ge=1)
    stream: bool = False


class Server(Recorder):
    """An engine whose requests are HTTP requests; the clock gives seconds."""

    def __init__(
        self,
        definition: ServiceDefinition,
        *,
        speed: float,
        clock: Callable[[], float],
        draw: Draw | None = None,
        budgets: bool = True,
    ) -> None:
        """Serve from now on.

        Args:
            definition: the engine.
            speed: how much faster than its profile it is.
            clock: gives seconds.
            draw: how long thoughts and answers are; None: as in a published service.
            budgets: False: refuse ``thinking_token_budget``, as vLLM does without a reasoning parser.
        """
        self._draw, self._budgets, self._sglang = draw or drawn(), budgets, definition.engine == "sglang"
        profile = definition.engine_profile(speed)
        self._clock = clock
        self._pool = Pool(
            profile=profile,
            exposition=lambda: definition.exposition(profile),
            recorders=(self,),
            start_seconds=clock(),
        )
        self._pool.add(_POD, at_seconds=clock())
        self._finished: dict[int, asyncio.Event] = {}
        self._taken = 0

    def finished(self, outcome: Outcome) -> None:
        """Tell whoever waits for the answer; nobody, where the client hung up in the same step."""
        if (event := self._finished.get(outcome.request.id)) is not None:
            event.set()

    def page(self) -> str:
        """The metrics, as of now."""
        self._pool.advance(self._clock())
        return self._pool.metrics(_POD)

    async def work_forever(self) -> None:
        """Let the engine finish what is due."""
        while True:
            self._pool.advance(self._clock())
            await asyncio.sleep(TICK_SECONDS)

    def submit(self, body: CompletionRequest) -> tuple[int, asyncio.Event]:
        """Take a request; returns its id, and what is set when its answer is whole.

        Raises:
            ValueError: it does not fit into the model's length.
        """
        prompt = max(len(body.prompt.split()), 1)
        longest = self._pool.profile.max_model_len_tokens
        if prompt + body.max_tokens > longest:
            raise ValueError(f"max_tokens: {body.max_tokens} + {prompt} of the prompt are above {longest}")
        return self._take(prompt_tokens=prompt, output_tokens=body.max_tokens, max_tokens=body.max_tokens)

    def submit_chat(self, body: ChatRequest) -> tuple[int, asyncio.Event, Lengths, bool]:
        """Take a chat request; returns besides what will be written, and whether a limit on the whole cuts it.

        Raises:
            ValueError: it does not fit into the model's length, or asks for what this engine cannot do.
        """
        longest = self._pool.profile.max_model_len_tokens
        lengths, most = body.lengths(
            self._draw(), max_model_len_tokens=longest, budgets=self._budgets, sglang=self._sglang
        )
        number, event = self._take(
            prompt_tokens=body.prompt_tokens, output_tokens=max(1, lengths.tokens), max_tokens=most
        )
        return number, event, lengths, lengths.tokens == most

    def _take(self, *, prompt_tokens: int, output_tokens: int, max_tokens: int) -> tuple[int, asyncio.Event]:
        self._taken += 1
        number, event, now = self._taken, asyncio.Event(), self._clock()
        self._finished[number] = event
        request = Request(
            id=number,
            arrived_seconds=now,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            max_tokens=max_tokens,
        )
        self._pool.submit(request, at_seconds=now)
        return number, event

    def leave(self, number: int) -> None:
        """The answer is whole, or its client gave up."""
        if not self._finished.pop(number).is_set():
            self._pool.pods[_POD].engines[0].abort(number, at_seconds=self._clock())


def application(server: Server) -> web.Application:
    """The routes over a server."""

    async def complete(request: web.Request) -> web.StreamResponse:
        try:
            body = CompletionRequest.model_validate_json(await request.read())
            number, finished = server.submit(body)
        except (ValidationError, ValueError) as error:
            return _bad_request(error)
        try:
            return await _answer(request, body, finished)
        finally:
            server.leave(number)

    async def chat(request: web.Request) -> web.StreamResponse:
        try:
            body = ChatRequest.model_validate_json(await request.read())
            number, finished, lengths, cut = server.submit_chat(body)
        except (ValidationError, ValueError) as error:
            return _bad_request(error)
        try:
            if not body.stream:
                await finished.wait()
                return web.json_response(completion(body, lengths, cut=cut))
            last = last_chunks(body, lengths, cut=cut)
            return await _stream(request, finished, part=chunk(body, {"role": "assistant"}), last=last)
        finally:
            server.leave(number)

    async def metrics(_: web.Request) -> web.Response:
        return metrics_page(server.page())

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/completions", complete),
            web.post("/v1/chat/completions", chat),
            web.get("/metrics", metrics),
            web.get("/health", health),
        ]
    )
    return app


def _bad_request(error: Exception) -> web.Response:
    problem = {"message": str(error), "type": "BadRequestError", "param": None, "code": 400}
    return web.json_response({"error": problem}, status=400)


async def _answer(request: web.Request, body: CompletionRequest, finished: asyncio.Event) -> web.StreamResponse:
    usage = {"completion_tokens": body.max_tokens}
    choice = {"index": 0, "text": "", "finish_reason": "length"}
    whole = {"object": "text_completion", "choices": [choice], "usage": usage}
    if not body.stream:
        await finished.wait()
        return web.json_response(whole)
    part = {"object": "text_completion", "choices": [choice | {"text": "...", "finish_reason": None}]}
    return await _stream(request, finished, part=part, last=[whole])


async def _stream(
    request: web.Request, finished: asyncio.Event, *, part: dict[str, Any], last: Sequence[dict[str, Any]]
) -> web.StreamResponse:
    """Repeat a piece as a sign of life until the answer is whole, then end with the last ones."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while not finished.is_set():
        await response.write(_event(json.dumps(part)))
        try:
            await asyncio.wait_for(finished.wait(), CHUNK_SECONDS)
        except TimeoutError:
            continue
    for piece in last:
        await response.write(_event(json.dumps(piece)))
    await response.write(_event("[DONE]"))
    await response.write_eof()
    return response


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def serve(
    definition: ServiceDefinition, *, address: str, port: int, speed: float, draw: Draw | None, budgets: bool
) -> None:
    """Serve until SIGTERM or SIGINT."""
    clock = asyncio.get_running_loop().time
    server = Server(definition, speed=speed, clock=clock, draw=draw, budgets=budgets)
    # A client that hangs up has its handler cancelled, which gives the slot back.
    await host(application(server), address=address, port=port, jobs=[server.work_forever], handler_cancellation=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m longtail.workbench.engine.serve")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a pod")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one")
    parser.add_argument("--speed", type=float, default=1.0, help="how much faster than the profile the GPU is")
    parser.add_argument("--profile", default="qwen3-32b-1xh100-fp8")
    parser.add_argument("--slots", type=int, help="sequences decoded at once")
    parser.add_argument("--engine", default="vllm", help="vllm, vllm-previous or sglang: names of the metrics")
    parser.add_argument("--reasoning-tokens", type=int, help="length of every thought; drawn, when not given")
    parser.add_argument(
        "--answer-tokens", type=int, default=300, help="length of every answer, beside --reasoning-tokens"
    )
    parser.add_argument("--no-budgets", action="store_true", help="refuse thinking_token_budget: no reasoning parser")
    parsed = parser.parse_args(sys.argv[1:] if argv is None else argv)
    draw = None
    if parsed.reasoning_tokens is not None:
        if min(parsed.reasoning_tokens, parsed.answer_tokens - 1) < 0:
            parser.error("--reasoning-tokens must be at least 0 and --answer-tokens at least 1")
        draw = partial(Lengths, parsed.reasoning_tokens, parsed.answer_tokens)
    if not 0 < parsed.speed <= 1000:
        parser.error(f"--speed must be above 0 and at most 1000, got {parsed.speed}")
    given = {"name": "pod", "profile": parsed.profile, "slots": parsed.slots, "engine": parsed.engine}
    try:
        definition = ServiceDefinition.model_validate(given)
    except ValidationError as error:
        parser.error(str(error))
    asyncio.run(
        serve(
            definition,
            address=parsed.host,
            port=parsed.port,
            speed=parsed.speed,
            draw=draw,
            budgets=not parsed.no_budgets,
        )
    )


if __name__ == "__main__":
    main()
