"""Many small writes at once, but not too many."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


async def in_parallel(write: Callable[[_T], Awaitable[None]], items: Sequence[_T], *, limit: int) -> None:
    """Write all items, at most ``limit`` at once, beginning in their order."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await write(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(limit, len(items))):
            group.create_task(work())
