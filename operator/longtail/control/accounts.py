"""Keeps the accounts of all services from tick to tick.

Two sums of the same intervals. ``counted`` grows only while this operator leads, and ends up in Prometheus counters: of
several operators each second is counted by one, so that they may be added. The *day* grows on a standby too, in 24
pieces of an hour, so that a status goes on after a failover. Both begin anew with the process: what must outlive it is
what Prometheus has scraped, and `longtail cost` reads that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from longtail.control.costs import Cost
from longtail.control.fleet import replica_gpus
from longtail.control.outcome import Outcome
from longtail.control.prices import Prices
from longtail.policy.accounting import LONGEST_SECONDS, NOTHING, PHASES, Account, account, held_gpus
from longtail.policy.fleet import GpuShape, ServiceKey

_HOUR_SECONDS: Final = 3600
_DAY_HOURS: Final = 24


_Piece: TypeAlias = tuple[float, ...]
"""An hour that is over: which one, seconds that were seen of it, and its account. A plain tuple of numbers, which the
garbage collector leaves alone: 240,000 of them in 10,000 services would cost it a second a tick."""


@dataclass(frozen=True, slots=True)
class _Day:
    """The last 24 hours: pieces that are over, what they add up to, and the hour that goes on."""

    hour: int
    seconds: float = 0.0
    account: Account = NOTHING
    over: tuple[_Piece, ...] = ()
    before_seconds: float = 0.0
    before: Account = NOTHING
    """Of the pieces that are over."""

    def with_entry(self, entry: Account, seconds: float, *, hour: int) -> "_Day":
        """The day, with one more interval that ends in this hour."""
        if hour == self.hour:
            account = self.account + entry
            return _Day(hour, self.seconds + seconds, account, self.over, self.before_seconds, self.before)
        pieces = (*self.over, (self.hour, self.seconds, *self.account))
        over = tuple(piece for piece in pieces if hour - _DAY_HOURS < piece[0] < hour)
        before = sum((Account._make(piece[2:]) for piece in over), start=NOTHING)
        return _Day(hour, seconds, entry, over, sum(piece[1] for piece in over), before)


@dataclass(frozen=True, slots=True)
class _Book:
    """One service. Begun anew when another resource has its name, or its replicas take other GPUs."""

    uid: str
    gpus: GpuShape
    at: float
    day: _Day
    counted: Account = NOTHING
    amounts: tuple[float, ...] = (0.0,) * len(PHASES)


class Accounts:
    """Adds up, tick by tick. One tick at a time; in whichever thread."""

    def __init__(self, *, prices: Prices | None, leads: Callable[[], bool]) -> None:
        """Begin with nothing known.

        Args:
            prices: None where the administrator gave none.
            leads: whether this operator is the one whose counters count.
        """
        self._prices = prices
        self._leads = leads
        self._books: Mapping[ServiceKey, _Book] = {}

    def settle(self, outcomes: Mapping[ServiceKey, Outcome], *, now: float) -> dict[ServiceKey, Outcome]:
        """Return the outcomes with what each service costs, where its GPUs are known."""
        leads = self._leads()
        books: dict[ServiceKey, _Book] = {}
        settled: dict[ServiceKey, Outcome] = {}
        for key, outcome in outcomes.items():
            spec = outcome.view.record.spec
            gpus = None if spec is None or outcome.view.target is None else replica_gpus(outcome.view, spec)
            if gpus is None:
                # A target that cannot be seen for a moment comes back to its book.
                if key in self._books:
                    books[key] = self._books[key]
                settled[key] = outcome
                continue
            books[key] = self._entered(self._books.get(key), outcome, gpus, now=now, leads=leads)
            settled[key] = replace(outcome, cost=self._cost(books[key], outcome, now=now))
        self._books = books
        return settled

    def _entered(self, book: _Book | None, outcome: Outcome, gpus: GpuShape, *, now: float, leads: bool) -> _Book:
        uid, hour = outcome.view.record.uid, int(now // _HOUR_SECONDS)
        if book is None or (book.uid, book.gpus) != (uid, gpus):
            return _Book(uid=uid, gpus=gpus, at=now, day=_Day(hour))
        demand = outcome.decision.demand if outcome.decision is not None else None
        entry = account(
            pods=[record.pod for record in outcome.view.pods],
            gpus=gpus,
            observation=outcome.observation,
            slots_used=None if demand is None else demand.slots_now,
            slots_per_replica=None if demand is None else demand.capacity.slots_per_replica,
            since=book.at,
            now=now,
        )
        seconds = now - book.at if 0 < now - book.at <= LONGEST_SECONDS else 0.0
        day = book.day.with_entry(entry, seconds, hour=hour)
        if not leads:
            return _Book(uid, gpus, now, day, book.counted, book.amounts)
        price = self._prices.of(gpus.gpu_class) if self._prices is not None else None
        amounts = book.amounts
        if price is not None:
            per_second = float(price.amount) / 3600
            both = zip(book.amounts, entry.by_phase, strict=True)
            amounts = tuple(before + gpu_seconds * per_second for before, gpu_seconds in both)
        return _Book(uid, gpus, now, day, book.counted + entry, amounts)

    def _cost(self, book: _Book, outcome: Outcome, *, now: float) -> Cost:
        return Cost(
            gpus=book.gpus,
            held_gpus=held_gpus([record.pod for record in outcome.view.pods], book.gpus, now=now),
            price=self._prices.of(book.gpus.gpu_class) if self._prices is not None else None,
            day=book.day.before + book.day.account,
            day_seconds=book.day.before_seconds + book.day.seconds,
            counted=book.counted,
            amounts=book.amounts,
        )
