"""What clients got of a pool: who was answered in time, who gave up, and how much thinking was taken from them."""

from longtail.workbench.fleet.accounts import Bins
from longtail.workbench.fleet.arrivals import Arrivals
from longtail.workbench.fleet.engines import Engines
from longtail.workbench.fleet.engines_clients import ATTEMPT, FIRST_ARRIVAL, WISHED, ClientEngines
from longtail.workbench.fleet.meters import OUTPUT, START, table_of
from longtail.workbench.fleet.run import Answers


class AnswerBooks:
    """Books of one run, kept from the moment on at which they are opened."""

    def __init__(self, bins: Bins, seconds_per_token: float) -> None:
        self.level_changes = 0
        self._bins = bins
        self._pace = seconds_per_token
        self._open = False
        self._retries_before = self._retries = 0
        self._away_before = self._away = 0
        self._cut_before, self._cut = (0, 0), (0, 0)
        self._sums = dict.fromkeys(("answered", "answered_first", "given_up", "aborted", "expired"), 0)
        self._aborted_tokens = 0.0

    def open(self) -> None:
        """What happened until now is not counted."""
        self._open = True
        self._retries_before, self._away_before, self._cut_before = self._retries, self._away, self._cut
        self.level_changes = 0

    def count(self, engines: Engines | ClientEngines, arrivals: Arrivals) -> None:
        """What ended since the last time."""
        if not isinstance(engines, ClientEngines):
            self._cut = arrivals.capped_requests, arrivals.cut_tokens
            if self._open:
                self._add(answered=len(engines.finished), answered_first=len(engines.finished))
            return
        self._retries, self._away = engines.retries, engines.turned_away
        if not self._open:
            return
        self._bins.ask(engines.asked)
        self._add(given_up=len(engines.lost), aborted=len(engines.aborted), expired=len(engines.expired))
        if engines.finished:
            finished = table_of(engines.finished)
            once = finished[:, ATTEMPT] == 0
            self._add(answered=len(finished), answered_first=int(once.sum()))
            self._bins.answer(finished[:, FIRST_ARRIVAL], finished[once, FIRST_ARRIVAL])
            cut = finished[:, WISHED] - finished[:, OUTPUT]
            self._cut = self._cut[0] + int((cut > 0).sum()), self._cut[1] + int(cut.sum())
        if engines.aborted:
            aborted = table_of(engines.aborted)
            self._aborted_tokens += float((aborted[:, 0] - aborted[:, START]).sum()) / self._pace

    def result(self) -> Answers:
        """What there was since the books were opened."""
        return Answers(
            answered=self._sums["answered"],
            answered_first=self._sums["answered_first"],
            given_up=self._sums["given_up"],
            retries=self._retries - self._retries_before,
            aborted_requests=self._sums["aborted"],
            expired_requests=self._sums["expired"],
            turned_away=self._away - self._away_before,
            aborted_tokens=self._aborted_tokens,
            capped_requests=self._cut[0] - self._cut_before[0],
            cut_tokens=self._cut[1] - self._cut_before[1],
            level_changes=self.level_changes,
        )

    def _add(self, **counts: int) -> None:
        for name, count in counts.items():
            self._sums[name] += count
