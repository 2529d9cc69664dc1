"""Chat requests to a simulated engine: a thought and an answer, of which a client may cap the first or both.

``POST /v1/chat/completions`` reads and answers as vLLM 0.32 does (``entrypoints/openai/chat_completion``)::

    thinking_token_budget   at most so many tokens of thought, then the answer; -1 or null: no limit
    max_tokens              at most so many tokens in all: what it cuts first is the answer

and as SGLang 0.5.23 does with ``--enable-strict-thinking``, which reads ``custom_params.thinking_budget`` instead.
How long a thought would be is the model's secret. Here it is drawn, or the same for every request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from longtail.workbench.engine.workload import R1_OUTPUT

_REASONING_SHARE = 0.74
"""Share of the thought in the output of DeepSeek-R1 in production (ServeGen, arXiv 2505.09999)."""
_NO_PARSER = (
    "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-parser and/or "
    "--reasoning-config to use thinking_token_budget."
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a thought and of the answer after it."""

    reasoning_tokens: int
    answer_tokens: int

    @property
    def tokens(self) -> int:
        """Both."""
        return self.reasoning_tokens + self.answer_tokens

    def within(self, *, thinking_token_budget: int | None, max_tokens: int) -> Self:
        """What is left of them under a client's limits.

        >>> Lengths(4000, 300).within(thinking_token_budget=1024, max_tokens=8000)
        Lengths(reasoning_tokens=1024, answer_tokens=300)
        >>> Lengths(4000, 300).within(thinking_token_budget=None, max_tokens=4100)
        Lengths(reasoning_tokens=4000, answer_tokens=100)
        """
        thought = self.reasoning_tokens
        if thinking_token_budget is not None:
            thought = min(thought, thinking_token_budget)
        thought = min(thought, max_tokens)
        return type(self)(reasoning_tokens=thought, answer_tokens=min(self.answer_tokens, max_tokens - thought))


Draw = Callable[[], Lengths]
"""The lengths of the next request, before any limit."""


def drawn(seed: int = 0) -> Draw:
    """Lengths of a published reasoning service, one after the other."""
    rng = np.random.default_rng(seed)

    def draw() -> Lengths:
        tokens = int(R1_OUTPUT.sample(rng, 1)[0])
        reasoning = round(_REASONING_SHARE * tokens)
        return Lengths(reasoning_tokens=reasoning, answer_tokens=max(1, tokens - reasoning))

    return draw


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: str
    content: Any = None


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """What is read of a request; the rest of the API's fields are taken and ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(default="", max_length=1000)
    messages: list[_Message] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    # Strict: vLLM takes neither 512.0 nor true.
    thinking_token_budget: Annotated[StrictInt, Field(ge=-1)] | None = None
    custom_params: dict[str, Any] | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None

    @model_validator(mode="after")
    def _unlimited(self) -> Self:
        if self.thinking_token_budget == -1:
            self.thinking_token_budget = None
        return self

    @property
    def prompt_tokens(self) -> int:
        """A word is a token."""
        return max(1, sum(len(str(message.content).split()) for message in self.messages))

    def budget(self, *, sglang: bool) -> int | None:
        """Tokens of thought allowed; None: any."""
        if not sglang:
            return self.thinking_token_budget
        given = (self.custom_params or {}).get("thinking_budget")
        return max(0, given) if isinstance(given, int) else None

    def lengths(
        self, natural: Lengths, *, max_model_len_tokens: int, budgets: bool = True, sglang: bool = False
    ) -> tuple[Lengths, int]:
        """What will be written, and the most tokens that it could have been.

        Args:
            natural: how long thought and answer would be.
            max_model_len_tokens: with the prompt.
            budgets: whether the engine has a reasoning parser.
            sglang: whether it is one.

        Raises:
            ValueError: it does not fit into the model's length, or the engine knows nothing of budgets.
        """
        budget = self.budget(sglang=sglang)
        if budget is not None and not budgets:
            raise ValueError(_NO_PARSER)
        room = max_model_len_tokens - self.prompt_tokens
        limit = self.max_completion_tokens or self.max_tokens
        if room < 1 or (limit is not None and limit > room):
            raise ValueError(f"max_tokens: {limit} + {self.prompt_tokens} of the prompt are above {room}")
        most = limit or room
        return natural.within(thinking_token_budget=budget, max_tokens=most), most


def completion(body: ChatRequest, lengths: Lengths, *, cut: bool) -> dict[str, Any]:
    """The whole answer: a word a token, in vLLM's fields."""
    message = {"role": "assistant", "content": _words("so", lengths.answer_tokens) or None}
    message["reasoning"] = _words("hm", lengths.reasoning_tokens) or None
    choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
    return _envelope("chat.completion", body) | {"choices": [choice], "usage": usage(body, lengths)}


def chunk(body: ChatRequest, delta: dict[str, Any], *, finish_reason: str | None = None) -> dict[str, Any]:
    """A piece of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _envelope("chat.completion.chunk", body) | {"choices": [choice]}


def last_chunks(body: ChatRequest, lengths: Lengths, *, cut: bool) -> list[dict[str, Any]]:
    """What ends a stream: the words that were not sent as they came, the reason, the usage if asked for."""
    chunks = []
    if lengths.reasoning_tokens:
        chunks.append(chunk(body, {"reasoning": _words("hm", lengths.reasoning_tokens)}))
    chunks.append(
        chunk(body, {"content": _words("so", lengths.answer_tokens)}, finish_reason="length" if cut else "stop")
    )
    if body.stream_options is not None and body.stream_options.include_usage:
        chunks.append(_envelope("chat.completion.chunk", body) | {"choices": [], "usage": usage(body, lengths)})
    return chunks


def usage(body: ChatRequest, lengths: Lengths) -> dict[str, Any]:
    """Tokens, with those of the thought apart."""
    return {
        "prompt_tokens": body.prompt_tokens,
        "completion_tokens": lengths.tokens,
        "total_tokens": body.prompt_tokens + lengths.tokens,
        "completion_tokens_details": {"reasoning_tokens": lengths.reasoning_tokens},
    }


def _envelope(kind: str, body: ChatRequest) -> dict[str, Any]:
    return {"id": "chatcmpl-simulated", "object": kind, "created": 0, "model": body.model}


def _words(word: str, count: int) -> str:
    return " ".join([word] * count)
