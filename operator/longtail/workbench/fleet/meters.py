"""vLLM's counters and gauges of every replica, kept in whole arrays: one row a replica, one column a counter.

Requests are counted when it is asked for (at a scrape, or when a row changes hands), all that have started and
finished since then at once: a few array operations per scrape instead of some per request.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from longtail.workbench.replay import FIRST_TOKEN_BOUNDS, WAIT_BOUNDS, token_bounds
from longtail.workbench.traces.trace import Floats, Integers

GENERATED, FIRST_TOKENS, FINISHED, FINISHED_PROMPT, FINISHED_OUTPUT, ABORTED = range(6)
"""Columns of the plain counters: output tokens written, requests with a first token, finished requests, and the
prompt and output tokens of these, and requests that were given up. Three histograms follow."""
_PLAIN = 6
ROW, START, ARRIVAL, PROMPT, OUTPUT = range(1, 6)
"""Columns of a table of attempts, after their end."""


class Columns:
    """Where the histograms are among the columns. Counts are per bucket, not cumulative over buckets."""

    def __init__(self, max_model_len_tokens: float) -> None:
        self.length_bounds = token_bounds(max_model_len_tokens)
        edges = np.cumsum([_PLAIN, len(self.length_bounds), len(WAIT_BOUNDS), len(FIRST_TOKEN_BOUNDS)])
        self.length, self.wait, self.first_token = (slice(*pair) for pair in itertools.pairwise(edges.tolist()))
        """Finished requests by output length, finished requests by the time they had waited, started requests by
        the time to their first token."""
        self.count = int(edges[-1])


class Meters:
    """The meters of all rows. A row that is taken again starts from 0."""

    def __init__(self, columns: Columns, seconds_per_token: float) -> None:
        self.columns = columns
        self._pace = seconds_per_token
        self._counters = np.zeros((0, columns.count))
        self._start_sum = np.zeros(0)
        """Sum of the starts of what runs: with their number and the pace it gives the tokens written."""
        self._dropped = np.zeros(0)
        """Output tokens of what was given up: they were written, and belong to no finished request."""
        self._prompts = np.zeros(0)
        """Prompt tokens of what runs."""

    def grow(self, rows: int) -> None:
        """Make room for rows."""
        more = rows - len(self._counters)
        if more > 0:
            self._counters = np.concatenate([self._counters, np.zeros((more, self.columns.count))])
            self._start_sum = np.concatenate([self._start_sum, np.zeros(more)])
            self._prompts = np.concatenate([self._prompts, np.zeros(more)])
            self._dropped = np.concatenate([self._dropped, np.zeros(more)])

    def reset(self, row: int) -> None:
        """Another replica takes the row."""
        self._counters[row] = 0.0
        self._start_sum[row] = self._prompts[row] = self._dropped[row] = 0.0

    def count(self, started: Sequence[Sequence[float]], finished: Sequence[Sequence[float]]) -> Floats:
        """Count what happened. Returns how long those that started had waited, in seconds."""
        waits: Floats = np.zeros(0)
        if started:
            table = table_of(started)
            row = table[:, ROW].astype(np.intp)
            waits = table[:, START] - table[:, ARRIVAL]
            self._shift(row, table, +1.0)
            self._counters[:, FIRST_TOKENS] += self._by_row(row)
            self._count_into(self.columns.first_token, FIRST_TOKEN_BOUNDS, row, waits)
        if finished:
            table = table_of(finished)
            row = table[:, ROW].astype(np.intp)
            self._shift(row, table, -1.0)
            self._counters[:, FINISHED] += self._by_row(row)
            self._counters[:, FINISHED_PROMPT] += self._by_row(row, table[:, PROMPT])
            self._counters[:, FINISHED_OUTPUT] += self._by_row(row, table[:, OUTPUT])
            self._count_into(self.columns.length, self.columns.length_bounds, row, table[:, OUTPUT])
            self._count_into(self.columns.wait, WAIT_BOUNDS, row, table[:, START] - table[:, ARRIVAL])
        return waits

    def abort(self, aborted: Sequence[Sequence[float]], *, counted: bool) -> None:
        """Count what was given up while it ran: its tokens stay written, and enter no histogram, as with vLLM."""
        if not aborted:
            return
        table = table_of(aborted)
        row = table[:, ROW].astype(np.intp)
        self._shift(row, table, -1.0)
        self._dropped += self._by_row(row, (table[:, 0] - table[:, START]) / self._pace)
        if counted:
            self._counters[:, ABORTED] += self._by_row(row)

    def expire(self, rows: Integers, requests: int) -> None:
        """Count what was given up while it waited on some engines, in equal parts."""
        if len(rows):
            np.add.at(self._counters[:, ABORTED], rows[np.arange(requests) % len(rows)], 1.0)

    def attained(self, rows: Integers, running: Floats, at_seconds: float) -> Floats:
        """Output tokens written so far by what runs on some rows, whole and in fractions."""
        tokens: Floats = np.maximum(running * at_seconds - self._start_sum[rows], 0.0) / self._pace
        tokens[running == 0] = 0.0
        return tokens

    def prompts(self, rows: Integers) -> Floats:
        """Prompt tokens of what runs on some rows."""
        return self._prompts[rows]

    def counters(self, rows: Integers, attained: Floats) -> Floats:
        """All counters of some rows, shape (rows, columns), given the tokens written by what runs."""
        # Sums of floats may lose a rounding error; a counter may not.
        self._counters[rows, GENERATED] = np.maximum(
            self._counters[rows, GENERATED], self._counters[rows, FINISHED_OUTPUT] + self._dropped[rows] + attained
        )
        taken: Floats = self._counters[rows]
        return taken

    def _shift(self, row: Integers, table: Floats, sign: float) -> None:
        self._start_sum += sign * self._by_row(row, table[:, START])
        self._prompts += sign * self._by_row(row, table[:, PROMPT])

    def _by_row(self, row: Integers, weights: Floats | None = None) -> Floats:
        return np.bincount(row, weights=weights, minlength=len(self._counters)).astype(np.float64)

    def _count_into(self, columns: slice, bounds: Sequence[float], row: Integers, values: Floats) -> None:
        bucket = np.searchsorted(bounds, values, side="left")
        np.add.at(self._counters, (row, columns.start + bucket), 1.0)


def table_of(requests: Sequence[Sequence[float]]) -> Floats:
    """One row a request; by way of one flat iterator, which numpy reads faster than tuples."""
    width = len(requests[0]) if requests else 1
    flat = np.fromiter(itertools.chain.from_iterable(requests), np.float64, width * len(requests))
    return flat.reshape(-1, width)
