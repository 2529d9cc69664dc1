"""Lengths as they would be if nobody were asked to think less.

While a budget is in force, what engines report is cut already, and a forecast made of that alone would never give the
thinking back. Below the limit hazards are still seen as they are; those above are kept from before, until the cut
answers have faded from the sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from longtail.demand.buckets import BUCKETS, UPPER, Array, Array32, Index, Mask
from longtail.demand.lengths import RECENT_SECONDS
from longtail.demand.parameters import Thinking
from longtail.demand.survival import Survival

FADED_SECONDS = 3 * RECENT_SECONDS
"""After so long without a limit an eighth of what was cut is left in the recent lengths."""


@dataclass(frozen=True, slots=True)
class ThinkingState:
    """Usual lengths of each service. Shape (services,) unless said otherwise."""

    hazard: Array32
    """Per token, of the usual lengths, shape (services, `BUCKETS`)."""
    known: Mask
    limit_tokens: Array
    """Longest answer that lately was allowed; inf where nothing was reduced."""
    lifted_seconds: Array
    """For how long the limit in force has been above that."""
    answer_tokens: Array
    """Mean tokens after the reasoning, of answers that were not limited; 0 where never known."""

    @classmethod
    def fresh(cls, services: int) -> "ThinkingState":
        """Nothing seen."""
        zeros = np.zeros(services)
        return cls(
            hazard=np.zeros((services, BUCKETS), dtype=np.float32),
            known=zeros.astype(bool),
            limit_tokens=np.full(services, np.inf),
            lifted_seconds=zeros,
            answer_tokens=zeros,
        )


def learn(
    state: ThinkingState,
    *,
    thinking: Sequence[tuple[int, Thinking]],
    recent: Survival,
    reasoning_share: Array,
    share_known: Mask,
    elapsed_seconds: float,
) -> ThinkingState:
    """The state after a tick in which the limits of ``thinking``, by row, were in force."""
    rows = np.array([row for row, _ in thinking], dtype=np.intp)
    if not len(rows):
        return state
    answer = answer_tokens(state, thinking=[each for _, each in thinking], rows=rows)
    now = np.array([_limit(each, tokens) for (_, each), tokens in zip(thinking, answer, strict=True)])
    before = state.limit_tokens[rows]
    lifted = np.where(now > before, state.lifted_seconds[rows] + elapsed_seconds, 0.0)
    limit = np.where((now <= before) | (lifted >= FADED_SECONDS), now, before)
    seen = (limit[:, None] >= UPPER) | ~state.known[rows, None]
    free = np.isinf(limit) & share_known[rows]
    hazard, known = state.hazard.copy(), state.known.copy()
    limits, seconds, answers = state.limit_tokens.copy(), state.lifted_seconds.copy(), state.answer_tokens.copy()
    hazard[rows] = np.where(seen, recent.hazard[rows], state.hazard[rows])
    known[rows] = True
    limits[rows] = limit
    seconds[rows] = np.where(now > limit, lifted, 0.0)
    share = np.minimum(reasoning_share[rows], 1.0)
    answers[rows] = np.where(free, np.maximum((1 - share) * recent.mean[rows], 1.0), state.answer_tokens[rows])
    return replace(
        state, hazard=hazard, known=known, limit_tokens=limits, lifted_seconds=seconds, answer_tokens=answers
    )


def reduced(thinking: Sequence[tuple[int, Thinking]], services: int) -> Mask:
    """Where less than the usual thinking is allowed now; ``thinking`` by row, the result of shape (services,).

    >>> usual, less = Thinking((np.inf, 512.0), 300.0, in_force=True), Thinking((np.inf, 512.0), 300.0, 1, True)
    >>> reduced([(0, usual), (2, less)], 3).tolist()
    [False, False, True]
    """
    result: Mask = np.zeros(services, dtype=bool)
    result[[row for row, each in thinking if each.reduced]] = True
    return result


def answer_tokens(state: ThinkingState, *, thinking: Sequence[Thinking], rows: Index) -> Array:
    """Mean tokens after the reasoning, shape (rows,): learned, else as the user says."""
    said = np.array([each.answer_tokens for each in thinking])
    learned = state.answer_tokens[rows]
    result: Array = np.where(learned > 0, learned, said)
    return result


def _limit(thinking: Thinking, answer_tokens: float) -> float:
    """Longest answer in tokens that a reduced level allows, a budget being a limit of the reasoning only; else inf."""
    return thinking.budgets_tokens[thinking.level] + answer_tokens if thinking.reduced else np.inf
