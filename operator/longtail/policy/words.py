"""Figures in words, as the rungs of the ladder tell them."""

from collections.abc import Sequence


def number(value: float) -> str:
    """At most one decimal, and none where there is nothing behind it.

    >>> number(14.0), number(14.26), number(20480.0)
    ('14', '14.3', '20,480')
    """
    return f"{value:,.1f}".removesuffix(".0")


def replicas(count: int) -> str:
    """A count of replicas.

    >>> replicas(1), replicas(3)
    ('1 replica', '3 replicas')
    """
    return "1 replica" if count == 1 else f"{count} replicas"


def some(names: Sequence[str]) -> str:
    """A few names, and how many more.

    >>> some(("a", "b", "c", "d", "e"))
    'a, b, c and 2 more'
    """
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
