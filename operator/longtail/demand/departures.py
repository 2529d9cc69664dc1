"""Requests that were given up while they ran: how many, and how much they had written.

vLLM counts no aborted request anywhere (0.33). But what starts either runs on, finishes or is given up, so that

    given up = first tokens - finished requests - growth of the running requests
    lost     = tokens written - tokens of finished requests - growth of the tokens in flight

need no counter of aborts. The second over the first is how old they were. It matters: clients with a time-out leave
when they are the oldest, and where these are taken from all ages alike, requests that are long gone keep writing in the
model, none of them ever ends, and answers seem longer than they are. Clients that go at any time are of all ages; those
that change their mind at once are the youngest.

So a part of them is taken from one end of the ages, and the rest from all alike: all from the oldest if they were as
old as the longest answers that finish, none if they were as old as anybody in flight. Both are known from counters
alone: ages in flight are what is to be mended here, and would agree with any number of ghosts. Ages are known to
a tick: where half an answer is written in one (1,500 tokens at 10 ms), all are taken alike.

Preempted requests leave and come back, and gauges and counters are not always of the same moment: both put as much
into the balance as they take out of it again, so what is too little now is held against what is too much later.
"""

from dataclasses import dataclass, replace

import numpy as np

from longtail.demand.buckets import BUCKETS, DUST, EDGES, UPPER, Array, Array32, Index, Mask, dusted
from longtail.demand.inflight import FEW, InFlight

MEMORY_SECONDS = 3600.0
PRIOR_REQUESTS = 5.0
"""So many are taken to have gone at any age, before it is known how old they are."""
LONGEST = 0.99
"""Quantile of the answers that finish which is the longest of them."""
COARSE = 0.5
"""Part of a mean answer that is written in a tick, from which on nobody can tell how old requests are."""
_HIGH: Array = np.append(UPPER[1:-1], 2 * EDGES[-1])
_LOG_WIDTH: Array = np.log(_HIGH / EDGES[1:])
MEAN_TOKENS: Array = np.append(0.5, (_HIGH - EDGES[1:]) / _LOG_WIDTH)
"""Mean length of the answers in each bucket, taken as log-uniform in it: 1,443 tokens between 1,000 and 2,000 ..."""
MEAN_SQUARE: Array = np.append(0.5, (_HIGH**2 - EDGES[1:] ** 2) / (2 * _LOG_WIDTH))
"""... and their mean square, in tokens squared."""


@dataclass(frozen=True, slots=True)
class DepartureState:
    """What is remembered. Shape (services,)."""

    requests: Array
    """That were given up while they ran, with forgetting; it may be below 0 for a while, as may be the tokens."""
    tokens: Array
    """That these had written."""
    finished: Array
    """Requests that finished meanwhile."""
    ahead: Array
    """Requests of which more came back than were seen to leave, >= 0."""

    @classmethod
    def fresh(cls, services: int) -> "DepartureState":
        """Nothing seen."""
        zeros = np.zeros(services)
        return cls(zeros, zeros, zeros, zeros)


def count(state: DepartureState, *, balance: Array, known: Mask) -> tuple[DepartureState, Array]:
    """The state, and how many requests are to be taken out of flight in this tick; shape (services,).

    >>> state = replace(DepartureState.fresh(1), ahead=np.array([2.0]))
    >>> after, gone = count(state, balance=np.array([3.0]), known=np.array([True]))
    >>> gone.tolist(), after.ahead.tolist()
    ([1.0], [0.0])
    """
    left = np.where(known, balance - state.ahead, 0.0)
    return replace(state, ahead=np.where(known, np.maximum(-left, 0.0), state.ahead)), np.maximum(left, 0.0)


def take(state: DepartureState, flight: InFlight, *, gone: Array, ended: Array32, tokens: Array) -> InFlight:
    """Cohorts without those that were given up: ``gone`` requests, shape (services,), of the age that such have had.

    ``ended`` are answers that finished by length, shape (services, `BUCKETS`); ``tokens`` is what a request writes in a
    tick, shape (services,). Here answers have 500 to 1,000 tokens, and as many were given up after 1,000: the oldest.

    >>> flight = InFlight(*np.array([[[10.0, 10.0, 10.0]], [[100.0, 500.0, 1000.0]]], dtype=np.float32))
    >>> ended = np.zeros((1, BUCKETS), dtype=np.float32)
    >>> ended[0, 9] = 50.0
    >>> old = DepartureState(*np.array([[1e9], [1e12], [1e9], [0.0]]))
    >>> tick = np.array([300.0])
    >>> take(old, flight, gone=np.array([12.0]), ended=ended, tokens=tick).requests.round(3).tolist()
    [[10.0, 8.0, 0.0]]
    >>> unknown = DepartureState.fresh(1)
    >>> take(unknown, flight, gone=np.array([12.0]), ended=ended, tokens=tick).requests.round(3).tolist()
    [[6.0, 6.0, 6.0]]
    """
    rows = np.flatnonzero(gone > FEW)
    if not len(rows):
        return flight
    there = flight.requests[rows].astype(np.float64)
    total = there.sum(axis=1)
    number = np.minimum(gone[rows], total)
    alike = there * (number / np.maximum(total, FEW))[:, None]
    lean = _lean(state, rows=rows, ended=ended[rows].astype(np.float64), tokens=tokens[rows])[:, None]
    end = np.where(lean > 0, _first(there[:, ::-1], number)[:, ::-1], _first(there, number))
    share = np.abs(lean)
    left = there - share * end - (1 - share) * alike
    requests = flight.requests.copy()
    requests[rows] = np.where(left < FEW, 0.0, np.minimum(left, there))
    return replace(flight, requests=requests)


def share_of_tick(expected: InFlight, remaining: InFlight) -> Array32:
    """Part of the tick in which those of each cohort wrote, shape of the cohorts: half of it, if they were given up."""
    if remaining is expected:
        return np.ones_like(expected.requests)
    there = expected.requests > 0
    stayed = np.divide(remaining.requests, expected.requests, out=np.ones_like(expected.requests), where=there)
    result: Array32 = np.float32(0.5) * (1 + stayed).astype(np.float32)
    return result


def learn(
    state: DepartureState, *, balance: Array, lost_tokens: Array, finished: Array, known: Mask, elapsed_seconds: float
) -> DepartureState:
    """The state after a tick; where tokens and requests of it are not both ``known`` it stays as it is."""
    kept = float(np.exp(-min(elapsed_seconds / MEMORY_SECONDS, 60.0)))
    requests, tokens, done = (
        np.where(known, dusted(total * kept + more), total)
        for total, more in ((state.requests, balance), (state.tokens, lost_tokens), (state.finished, finished))
    )
    return replace(state, requests=requests, tokens=tokens, finished=done)


def _lean(state: DepartureState, *, rows: Index, ended: Array, tokens: Array) -> Array:
    """1: all that are given up are the oldest; 0: they are of all ages; -1: the youngest. Shape (len(rows),).

    Over all requests, given up or not, the mean age in flight is E[tokens^2] / (2 E[tokens]). Of those who are given up
    at any age the tokens are about exponential, so their mean square is twice the square of their mean.
    """
    finished, lost = state.finished[rows], np.maximum(state.requests[rows], 0.0)
    counted = ended.sum(axis=1)
    mean, square = (ended @ values / np.maximum(counted, DUST) for values in (MEAN_TOKENS, MEAN_SQUARE))
    age = np.maximum(state.tokens[rows], 0.0) / np.maximum(lost, DUST)
    written = finished * mean + lost * age
    usual = (finished * square + 2 * lost * age**2) / np.maximum(2 * written, DUST)
    within = (ended.cumsum(axis=1) <= (LONGEST * counted)[:, None]).sum(axis=1)
    longest = EDGES[np.minimum(within, BUCKETS - 1)]  # the lower edge of its bucket
    older, younger = (age - usual) / np.maximum(longest - usual, 1.0), (age - usual) / np.maximum(usual, 1.0)
    lean = np.where(age > usual, np.minimum(older, 1.0), np.maximum(younger, -1.0))
    fine = tokens * (finished + lost) <= COARSE * written
    return np.where(fine & (counted > 0), dusted(lean * lost / (lost + PRIOR_REQUESTS)), 0.0)


def _first(there: Array, number: Array) -> Array:
    """So many requests, shape (rows,), of the first cohorts that have them."""
    before = np.cumsum(there, axis=1) - there
    result: Array = np.minimum(np.maximum(number[:, None] - before, 0.0), there)
    return result
