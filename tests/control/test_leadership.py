"""Who leads, whatever the network and the processes do; and what is written meanwhile: nothing by two."""

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from longtail.cluster.client import KubernetesApi
from longtail.cluster.election import LeaseRecord, Timing
from longtail.cluster.lease import Lease, StoredLease
from longtail.control.leadership import Leadership, home_namespace
from longtail.errors import ClusterUnavailable, Conflict, NotLeading
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment

from .conftest import VirtualClock, VirtualLoop

TIMING = Timing()
SLACK = TIMING.lease_duration_seconds - TIMING.renew_deadline_seconds
PATH = "/apis/coordination.k8s.io/v1/namespaces/longtail-system/leases/longtail"


@dataclass
class Shelf:
    """Where the one Lease is kept: changes have to name the version that they change."""

    stored: StoredLease | None = None
    versions: itertools.count = field(default_factory=lambda: itertools.count(1))

    def write(self, record: LeaseRecord, *, expected: str | None) -> StoredLease:
        found = self.stored.resource_version if self.stored is not None else None
        if found != expected:
            raise Conflict(f"version {found}, not {expected}")
        self.stored = StoredLease(record=record, resource_version=str(next(self.versions)))
        return self.stored


@dataclass(frozen=True)
class Trip:
    """What a request goes through. A process that is frozen meanwhile sees the answer late, as if it had been slow."""

    there_seconds: float = 0.05
    back_seconds: float = 0.05
    arrives: bool = True
    returns: bool = True


class FarLease:
    """The way of one process to the shelf, and what happens on it, trip by trip; then all is well."""

    def __init__(self, shelf: Shelf, trips: Iterable[Trip] = ()) -> None:
        self.shelf, self.trips, self.broken = shelf, iter(trips), False

    async def read(self) -> StoredLease | None:
        return await self._ask(lambda: self.shelf.stored)

    async def create(self, record: LeaseRecord) -> StoredLease:
        return await self._ask(lambda: self.shelf.write(record, expected=None))

    async def replace(self, record: LeaseRecord, *, resource_version: str) -> StoredLease:
        return await self._ask(lambda: self.shelf.write(record, expected=resource_version))

    async def _ask(self, request):
        trip = next(self.trips, Trip())
        await asyncio.sleep(trip.there_seconds)
        if self.broken or not trip.arrives:
            raise ClusterUnavailable("no answer")
        answer, error = None, None
        try:
            answer = request()
        except Conflict as conflict:
            error = conflict
        await asyncio.sleep(trip.back_seconds)
        if not trip.returns:
            raise ClusterUnavailable("no answer")
        if error is not None:
            raise error
        return answer


@dataclass
class Fleet:
    """Operators that keep a Lease in virtual time, and what they say."""

    clock: object
    shelf: Shelf = field(default_factory=Shelf)
    members: dict[str, tuple[Leadership, FarLease, asyncio.Task]] = field(default_factory=dict)
    elections: list[tuple[str, float]] = field(default_factory=list)

    def join(self, name: str, trips: Iterable[Trip] = ()) -> None:
        lease = FarLease(self.shelf, trips)
        leadership = Leadership(
            lease=lease,
            instance=name,
            timing=TIMING,
            clock=self.clock,
            elected=lambda: self.elections.append((name, self.clock.monotonic_seconds())),
        )
        self.members[name] = (leadership, lease, asyncio.create_task(leadership.keep()))

    def leaders(self) -> list[str]:
        return [name for name, (leadership, _, _) in self.members.items() if leadership.may_write()]

    async def kill(self, name: str) -> None:
        *_, task = self.members.pop(name)
        task.cancel()

    async def close(self) -> None:
        for *_, task in self.members.values():
            task.cancel()


def a_trip() -> st.SearchStrategy[Trip]:
    """Mostly quick; else slow on either way, lost on either way, or taken by a process that freezes."""
    quick, slow, frozen = st.just(0.05), st.floats(0.5, 4.9), st.floats(12.0, 40.0)
    return st.one_of(
        st.just(Trip()),
        st.builds(Trip, there_seconds=st.one_of(quick, slow), back_seconds=slow),
        st.builds(Trip, there_seconds=frozen),
        st.builds(Trip, back_seconds=frozen),
        st.just(Trip(there_seconds=5.0, arrives=False)),
        st.just(Trip(back_seconds=5.0, returns=False)),
    )


@dataclass(frozen=True)
class Fate:
    """One process: when it joins, how its requests fare, and when it leaves in an orderly way, if it does."""

    joins_after_seconds: float
    trips: list[Trip]
    leaves_at_seconds: float | None


FATES = st.builds(
    Fate,
    joins_after_seconds=st.floats(0.0, 3.0),
    trips=st.lists(a_trip(), max_size=14),
    leaves_at_seconds=st.none() | st.floats(5.0, 60.0),
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(fates=st.lists(FATES, min_size=2, max_size=3))
@example(
    # The answer to its renewal was slow, then the process froze: the right to write counts from the question.
    fates=[Fate(0.0, [Trip(), Trip(), Trip(back_seconds=4.0), Trip(there_seconds=40.0)], None), Fate(0.5, [], None)]
)
@example(
    # A standby that was frozen has seen the Lease unchanged for 40 s, but has not looked.
    fates=[Fate(0.0, [], None), Fate(0.5, [Trip(), Trip(), Trip(back_seconds=40.0)], None)]
)
def test_whatever_happens_no_two_write_and_there_is_slack_between_them(fates: list[Fate]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_watch(fates, VirtualClock()))


async def _watch(fates: list[Fate], clock: VirtualClock) -> None:
    """Look ten times a second, for long enough that all troubles are over."""
    fleet = Fleet(clock)
    ended: dict[str, float] = {}
    releases: list[asyncio.Task] = []
    for number, fate in enumerate(fates):
        fleet.join(str(number), fate.trips)
        await asyncio.sleep(fate.joins_after_seconds)
    leaving = {str(number): fate.leaves_at_seconds for number, fate in enumerate(fates)}
    troubles = max(sum(trip.there_seconds + trip.back_seconds + 2 for trip in fate.trips) for fate in fates)
    while clock.monotonic_seconds() < troubles + 40.0:
        now = clock.monotonic_seconds()
        for name, (leadership, _, task) in list(fleet.members.items()):
            if leaving[name] is not None and now >= leaving[name] and len(fleet.members) > 1:
                del fleet.members[name]
                task.cancel()
                releases.append(asyncio.create_task(leadership.release()))
                # Whoever leaves breaks its writes off first: no slack is needed after it.
                ended[name] = now - SLACK
            elif leadership.may_write():
                ended[name] = now + leadership.write_seconds()
                assert all(end + SLACK <= now + 0.11 for other, end in ended.items() if other != name)
        await asyncio.sleep(0.1)
    # And in the end somebody leads again.
    assert len(fleet.leaders()) == 1
    await fleet.close()
    await asyncio.gather(*releases)


@pytest.fixture
def elect(run_virtually, virtual_clock):
    """Run a scenario with three operators, of which the first leads."""

    def run(scenario):
        async def main():
            fleet = Fleet(virtual_clock)
            for name in ("a", "b", "c"):
                fleet.join(name)
                await asyncio.sleep(0.7)
            assert fleet.leaders() == ["a"]
            await asyncio.sleep(60.0)
            assert fleet.leaders() == ["a"]
            try:
                return await scenario(fleet)
            finally:
                await fleet.close()

        return run_virtually(main())

    return run


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0, 1.5, 1.9])
def test_a_dead_leader_is_succeeded_within_17_seconds(elect, moment: float) -> None:
    async def scenario(fleet: Fleet) -> None:
        await asyncio.sleep(moment)
        await fleet.kill("a")
        await asyncio.sleep(12.9)
        assert fleet.leaders() == []
        # At worst 2 s until the last renewal was seen, 15 s, and two requests.
        await asyncio.sleep(17.2 - 12.9)
        assert len(fleet.leaders()) == 1

    elect(scenario)


def test_an_orderly_stop_hands_over_within_a_retry_period(elect) -> None:
    async def scenario(fleet: Fleet) -> None:
        leadership, _, task = fleet.members.pop("a")
        task.cancel()
        await leadership.release()
        assert not leadership.may_write()
        await asyncio.sleep(TIMING.retry_period_seconds + 0.2)
        assert len(fleet.leaders()) == 1

    elect(scenario)


def test_a_leader_that_cannot_reach_the_api_server_stops_by_itself_and_stands_by(elect, caplog) -> None:
    async def scenario(fleet: Fleet) -> None:
        leadership, lease, _ = fleet.members["a"]
        lease.broken = True
        await asyncio.sleep(10.0)
        assert fleet.leaders() == []
        assert "cannot be kept: no answer" in leadership.role
        await asyncio.sleep(8.0)
        (successor,) = fleet.leaders()
        lease.broken = False
        await asyncio.sleep(60.0)
        assert fleet.leaders() == [successor]
        assert leadership.role.startswith(f"standby: {successor}_")
        # It stands by in earnest: when it is its turn it leads again.
        await fleet.kill(successor)
        await fleet.kill(next(name for name in fleet.members if name != "a"))
        await asyncio.sleep(20.0)
        assert fleet.leaders() == ["a"]
        assert [name for name, _ in fleet.elections] == ["a", successor, "a"]

    elect(scenario)
    assert caplog.text.count("no election") == 1
    assert "we do not lead any more" in caplog.text


def test_a_blip_is_not_a_new_term(elect) -> None:
    async def scenario(fleet: Fleet) -> None:
        for _, lease, _ in fleet.members.values():
            lease.broken = True
        await asyncio.sleep(12.0)
        assert fleet.leaders() == []
        for _, lease, _ in fleet.members.values():
            lease.broken = False
        await asyncio.sleep(2.2)
        assert fleet.leaders() == ["a"]
        assert [name for name, _ in fleet.elections] == ["a"]

    elect(scenario)


@pytest.fixture
def leadership(api: KubernetesApi, clock) -> Leadership:
    lease = Lease(api=api, namespace="longtail-system", name="longtail", timeout_seconds=TIMING.request_seconds)
    running = Leadership(lease=lease, instance="longtail-0", timing=TIMING, clock=clock, elected=lambda: None)
    api.write_seconds = running.write_seconds
    return running


async def test_over_real_sockets_a_lease_is_taken_kept_and_given_back(
    server: KubernetesFake, leadership: Leadership, clock
) -> None:
    await leadership.attempt()
    spec = server.objects[PATH]["spec"]
    assert spec["holderIdentity"] == leadership.identity
    assert leadership.identity.startswith("longtail-0_")
    assert (leadership.role, leadership.write_seconds()) == ("leader", 10.0)
    assert spec["renewTime"] == "2026-11-24T08:00:00.000000Z"
    clock.now = 2.0
    await leadership.attempt()
    assert [request.method for request in server.requests] == ["GET", "POST", "PATCH"]
    assert server.objects[PATH]["spec"]["renewTime"] == "2026-11-24T08:00:02.000000Z"
    await leadership.release()
    assert server.objects[PATH]["spec"]["holderIdentity"] == ""
    assert not leadership.may_write()


async def test_no_write_leaves_without_leadership_and_none_is_counted(
    server: KubernetesFake, api: KubernetesApi, leadership: Leadership, clock
) -> None:
    path = server.path_of(server.put(deployment())) + "/scale"
    answers: list[tuple[str, int]] = []
    api.on_response = lambda method, status: answers.append((method, status))

    async def refused() -> None:
        before = len(server.requests)
        for write in (
            api.merge_patch(path, body={"spec": {"replicas": 3}}),
            api.apply(path, body={}),
            api.post(path, body={}),
        ):
            with pytest.raises(NotLeading, match="not sent"):
                await write
        assert len(server.requests) == before

    await refused()
    assert answers == []
    await leadership.attempt()
    await api.merge_patch(path, body={"spec": {"replicas": 3}})
    # The loop was frozen: nobody has told us anything, and the right to write is gone all the same.
    clock.now += 10.0
    await refused()
    await api.get(path)


async def test_an_unknown_outcome_is_read_before_the_next_claim(
    server: KubernetesFake, leadership: Leadership, clock
) -> None:
    await leadership.attempt()
    server.fail("PATCH", PATH, status=500)
    clock.now = 2.0
    await leadership.attempt()
    assert leadership.may_write()
    assert "500" in leadership._complaint
    server.requests.clear()
    await leadership.attempt()
    assert [request.method for request in server.requests] == ["GET", "PATCH"]
    assert leadership._complaint == ""


async def test_a_lease_that_somebody_else_took_is_left_to_them(
    server: KubernetesFake, leadership: Leadership, clock
) -> None:
    await leadership.attempt()
    stolen = server.objects[PATH] | {"spec": server.objects[PATH]["spec"] | {"holderIdentity": "thief"}}
    server.put(stolen)
    clock.now = 2.0
    await leadership.attempt()
    await leadership.attempt()
    assert not leadership.may_write()
    assert leadership.role == "standby: thief leads"
    await leadership.release()
    assert server.objects[PATH]["spec"]["holderIdentity"] == "thief"


async def test_a_namespace_that_is_not_there_is_told_once(
    server: KubernetesFake, leadership: Leadership, caplog
) -> None:
    server.fail("POST", "/leases", status=404, answer={"message": "namespace not found"}, times=2)
    await leadership.attempt()
    await leadership.attempt()
    assert caplog.text.count("no election") == 1
    assert "Lease longtail-system/longtail cannot be kept" in leadership.role
    assert "namespace not found" in leadership.role


def test_outside_of_a_cluster_the_lease_has_a_fixed_home() -> None:
    assert home_namespace(in_cluster=False) == "longtail-system"
