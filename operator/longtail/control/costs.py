"""What a service costs: its account, priced. And money in words: decimal strings, never floats."""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from longtail.control.prices import Price
from longtail.policy.accounting import Account
from longtail.policy.fleet import GpuShape


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one service at one tick."""

    gpus: GpuShape
    held_gpus: int
    """GPUs that its pods hold now."""
    price: Price | None
    """Of one GPU-hour; None where the administrator gave none."""
    day: Account
    """Of the last 24 hours, as far as this process has seen them."""
    day_seconds: float
    """How much of them that is."""
    counted: Account
    """Since the start of this process, while it led: what may be added over all operators."""
    amounts: tuple[float, ...]
    """The money of ``counted`` by phase, each second at the price of its time."""

    @property
    def hourly_amount(self) -> Decimal | None:
        """What it costs in an hour, as it is now."""
        return None if self.price is None else self.price.amount * self.held_gpus


def priced(gpu_hours: float | None, price: Price | None) -> float | None:
    """The money for some GPU-hours; None where either is not known."""
    return None if gpu_hours is None or price is None else gpu_hours * float(price.amount)


def significant(value: float | Decimal, digits: int = 2) -> str:
    """A decimal string with so many significant digits, without an exponent; whole numbers keep all of theirs' size.

    >>> [significant(value) for value in (0.0, 0.012345, 3.14159, 99.6, 1234.5)]
    ['0', '0.012', '3.1', '100', '1200']
    """
    number = Decimal(str(value))
    if not number:
        return "0"
    rounded = number.quantize(Decimal(1).scaleb(number.adjusted() - digits + 1), rounding=ROUND_HALF_EVEN)
    return plain(rounded)


def plain(number: Decimal) -> str:
    """A decimal string without an exponent or useless zeros.

    >>> plain(Decimal("47.840")), plain(Decimal("1.2E+3"))
    ('47.84', '1200')
    """
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
