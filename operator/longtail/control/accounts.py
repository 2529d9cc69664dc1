"""Keeps the accounts of all services from tick to tick.

Two sums of the same intervals. ``counted`` grows only while this operator leads, and ends up in Prometheus counters: of
several operators each second is counted by one, so that they may be added. The *day* grows on a standby too, in 24
pieces of an hour, so that a status goes on after a failover. Both begin anew with the process: what must outlive it is
what Prometheus has scraped, and `longtail cost` reads that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from longtail.control.costs import Cost
from longtail.control.fleet import replica_gpus
from longtail.control.outcome import Outcome
from longtail.control.prices import Prices
from longtail.policy.accounting import LONGEST_SECONDS, NOTHING, PHASES, Account, account, held_gpus
from longtail.policy.fleet import GpuShape, ServiceKey

_HOUR_SECONDS: Final = 3600
_DAY_HOURS: Final = 24


@dataclass(frozen=True, slots=True)
class _Piece:
    """An hour, or what was seen of it."""

    hour: int
    account: Account
    seconds: float


@dataclass(frozen=True, slots=True)
class _Book:
    """One service. Begun anew when another resource has its name, or its replicas take other GPUs."""

    uid: str
    gpus: GpuShape
    at: float
    counted: Account = NOTHING
    amounts: tuple[float, ...] = (0.0,) * len(PHASES)
    pieces: tuple[_Piece, ...] = ()


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
        uid = outcome.view.record.uid
        if book is None or (book.uid, book.gpus) != (uid, gpus):
            return _Book(uid=uid, gpus=gpus, at=now)
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
        book = replace(book, at=now, pieces=_with(book.pieces, entry, seconds, hour=int(now // _HOUR_SECONDS)))
        if not leads:
            return book
        price = self._prices.of(gpus.gpu_class) if self._prices is not None else None
        per_second = 0.0 if price is None else float(price.amount) / 3600
        amounts = tuple(
            before + gpu_seconds * per_second for before, gpu_seconds in zip(book.amounts, entry.by_phase, strict=True)
        )
        return replace(book, counted=book.counted + entry, amounts=amounts)

    def _cost(self, book: _Book, outcome: Outcome, *, now: float) -> Cost:
        day = NOTHING
        for piece in book.pieces:
            day += piece.account
        return Cost(
            gpus=book.gpus,
            held_gpus=held_gpus([record.pod for record in outcome.view.pods], book.gpus, now=now),
            price=self._prices.of(book.gpus.gpu_class) if self._prices is not None else None,
            day=day,
            day_seconds=sum(piece.seconds for piece in book.pieces),
            counted=book.counted,
            amounts=book.amounts,
        )


def _with(pieces: tuple[_Piece, ...], entry: Account, seconds: float, *, hour: int) -> tuple[_Piece, ...]:
    kept = tuple(piece for piece in pieces if hour - _DAY_HOURS < piece.hour <= hour)
    if kept and kept[-1].hour == hour:
        return (*kept[:-1], _Piece(hour, kept[-1].account + entry, kept[-1].seconds + seconds))
    return (*kept, _Piece(hour, entry, seconds))
