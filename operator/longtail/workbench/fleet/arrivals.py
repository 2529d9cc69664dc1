"""The requests of a trace at the gateway, in order, and what a limit of thinking makes of them.

A limit applies to what arrives from then on: an engine takes a budget with the request and never after. Of a request
it leaves ``min(reasoning, limit)`` and the answer, which is ``min(output, limit + answer)``: so one number a request
has to be kept beside its output, and a whole piece of the trace is cut in one array operation.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from longtail.workbench.traces.trace import Integers, Trace

Queued = tuple[float, int, int]
"""(arrival, prompt tokens, output tokens)."""
Wish = tuple[float, int, int, int]
"""(arrival, prompt tokens, output tokens without a limit, those of them that are no reasoning)."""
ANSWER_TOKENS = 500

_NOBODY: Integers = np.zeros(0, np.int64)


def limited(output_tokens: int, answer_tokens: int, *, thinking_tokens: int | None) -> int:
    """Output tokens of a request under a limit of its reasoning.

    >>> limited(3000, 400, thinking_tokens=2048), limited(900, 400, thinking_tokens=2048)
    (2448, 900)
    """
    return output_tokens if thinking_tokens is None else max(min(output_tokens, thinking_tokens + answer_tokens), 1)


class Arrivals:
    """The requests in order of arrival, a piece at a time. Those without output need no slot and are left out."""

    def __init__(
        self,
        chunks: Iterable[Trace],
        *,
        answer_tokens: int = ANSWER_TOKENS,
        window_seconds: float = 0.0,
    ) -> None:
        self.thinking_tokens: int | None = None
        """The limit that is in force."""
        self.capped_requests = 0
        """Taken with a limit that made them shorter."""
        self.cut_tokens = 0
        """By how much, all together."""
        self._chunks: Iterator[Trace] = iter(chunks)
        self._answer_tokens = answer_tokens
        self._window_seconds = window_seconds
        self._loaded = 0
        self._wished, self._answers = _NOBODY, _NOBODY
        self._columns: tuple[Sequence[float], Sequence[int], Sequence[int]] = ((), (), ())
        self._next = 0
        self._over = False

    def limit(self, thinking_tokens: int | None) -> None:
        """From now on no request may think more than this; None: no limit."""
        if thinking_tokens != self.thinking_tokens:
            self.thinking_tokens = thinking_tokens
            arrivals, prompts, _ = self._columns
            self._columns = arrivals, prompts, self._outputs()

    def take(self, until_seconds: float) -> Iterator[Queued]:
        """Those that arrive up to a time, once, as they are under the limit."""
        for piece in self._pieces(until_seconds):
            arrivals, prompts, outputs = self._columns
            if self.thinking_tokens is not None:
                cut = self._wished[piece] - np.array(outputs[piece], np.int64)
                self.capped_requests += int((cut > 0).sum())
                self.cut_tokens += int(cut.sum())
            yield from zip(arrivals[piece], prompts[piece], outputs[piece], strict=True)

    def take_wishes(self, until_seconds: float) -> Iterator[Wish]:
        """Those that arrive up to a time, once, as their clients would have them."""
        for piece in self._pieces(until_seconds):
            arrivals, prompts, _ = self._columns
            wished, answers = self._wished[piece].tolist(), self._answers[piece].tolist()
            yield from zip(arrivals[piece], prompts[piece], wished, answers, strict=True)

    def _pieces(self, until_seconds: float) -> Iterator[slice]:
        """Places of those that arrive up to a time, chunk by chunk."""
        while not self._over:
            arrivals = self._columns[0]
            end = bisect_right(arrivals, until_seconds, self._next)
            piece = slice(self._next, end)
            self._next = end
            yield piece
            if end < len(arrivals) or self._loaded * self._window_seconds > until_seconds:
                return
            self._load_chunk()

    def _load_chunk(self) -> None:
        chunk = next(self._chunks, None)
        self._loaded += 1
        if chunk is None:
            self._over = True
            return
        served = chunk.select(chunk.output_tokens > 0)
        self._wished = served.output_tokens
        self._answers = (
            np.full(len(served), self._answer_tokens, np.int64)
            if served.reasoning_tokens is None
            else served.output_tokens - served.reasoning_tokens
        )
        self._columns = (served.arrival_seconds.tolist(), served.input_tokens.tolist(), self._outputs())
        self._next = 0

    def _outputs(self) -> Sequence[int]:
        if self.thinking_tokens is None:
            outputs: list[int] = self._wished.tolist()
            return outputs
        # An answer of nothing would need no slot at all, and its client gets a token at least.
        cut = np.maximum(np.minimum(self._wished, self._answers + self.thinking_tokens), 1)
        shortened: list[int] = cut.tolist()
        return shortened
