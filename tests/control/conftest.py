"""Virtual time: an event loop whose clock jumps to the next timer instead of sleeping."""

import asyncio
import selectors
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from longtail.cluster.client import KubernetesApi
from longtail_fakes.kubernetes import KubernetesFake

EPOCH = 1_795_507_200.0  # 2026-11-24T08:00:00Z


class _ImpatientSelector(selectors.DefaultSelector):
    """Looks at the sockets without waiting; what it was asked to wait is added to the clock."""

    skipped_seconds = 0.0

    def select(self, timeout: float | None = None):
        ready = super().select(0)
        if not ready and timeout:
            self.skipped_seconds += timeout
        return ready


class _Inline(ThreadPoolExecutor):
    """Runs what it is given at once."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, the future carries it
            future.set_exception(error)
        return future


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 and passes only while everybody waits."""

    def __init__(self) -> None:
        self._impatient = _ImpatientSelector()
        super().__init__(self._impatient)
        # A thread would work in real time while the virtual one runs on.
        self.set_default_executor(_Inline(1))

    def time(self) -> float:
        return self._impatient.skipped_seconds


class VirtualClock:
    """The clocks of the loop that runs."""

    def unix_seconds(self) -> float:
        return EPOCH + self.monotonic_seconds()

    def monotonic_seconds(self) -> float:
        return asyncio.get_event_loop().time()


@pytest.fixture
def virtual_clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def run_virtually():
    """Run a coroutine to its end in virtual time; returns its result."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(coroutine)

    return run


class SettableClock:
    """Clocks that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def unix_seconds(self) -> float:
        return EPOCH + self.now

    def monotonic_seconds(self) -> float:
        return self.now


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
async def server() -> AsyncIterator[KubernetesFake]:
    async with KubernetesFake().serve() as running:
        yield running


@pytest.fixture
async def api(server: KubernetesFake) -> AsyncIterator[KubernetesApi]:
    async with KubernetesApi(configuration=server.configuration()) as client:
        yield client
