"""GPUs that are not to be had: what is asked for, what is not, and what is said about it."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.policy.decision import Decision, Reason, Rung, Shortage, ShortageReason
from longtail.policy.fleet import Pod, Service, Target
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory
from longtail.policy.procurement import FORGET_SECONDS, LONGEST_BACKOFF_SECONDS, Procured, procure
from longtail.policy.roster import roster

from .worlds import AT_ONCE, NOW, TICK, WATCHED, demand, pods, rung, seen, service

PATIENCE = 180.0
NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
NO_IMAGE = "container engine: ImagePullBackOff: Back-off pulling image none"
QUOTA = 'pods "r1-x" is forbidden: exceeded quota: gpus'


def waiting(count: int, *, age: float = 600.0, **over: str) -> tuple[Pod, ...]:
    """Pods that no node takes, unless told otherwise."""
    return tuple(
        Pod(name=f"new-{n}", created_at=NOW - age, **(over or {"unschedulable_message": NO_GPU})) for n in range(count)
    )


def failing(count: int, *, age: float = 600.0) -> tuple[Pod, ...]:
    return tuple(
        replace(pod, scheduled_at=pod.created_at, stopped=True)
        for pod in waiting(count, age=age, failure_message=NO_IMAGE)
    )


def pool(*some: Pod, replicas: int | None = None, **over: str) -> Target:
    return Target(replicas=len(some) if replicas is None else replicas, ready_replicas=0, pods=some, **over)


def procured(number: int, target: Target, *, known: Shortage | None = None, now: float = NOW) -> Procured:
    return procure(
        number, target=target, pool=roster(target), highest=20, known=known, patience_seconds=PATIENCE, now=now
    )


def shortage(**over: object) -> Shortage:
    fields = {
        "reason": ShortageReason.UNSCHEDULABLE,
        "message": NO_GPU,
        "since": NOW - 600,
        "declared_at": NOW - 420,
        "retry_at": NOW + 60,
    }
    return Shortage(**(fields | over))  # type: ignore[arg-type]  # a table of overrides


@pytest.mark.parametrize(
    ("target", "reason", "message"),
    [
        pytest.param(pool(*pods(4), *waiting(2)), ShortageReason.UNSCHEDULABLE, NO_GPU, id="no-node-has-room"),
        pytest.param(
            pool(*pods(4), replicas=6, refused_message=QUOTA), ShortageReason.FAILED_CREATE, QUOTA, id="quota"
        ),
        pytest.param(pool(replicas=6, refused_message=QUOTA), ShortageReason.FAILED_CREATE, QUOTA, id="quota-of-none"),
        pytest.param(
            pool(*pods(4), *failing(2)), ShortageReason.CONTAINER_NOT_STARTING, NO_IMAGE, id="image-pull-failing"
        ),
        pytest.param(
            pool(*pods(4, age=7200.0), Pod(name="new", created_at=NOW - 3600, scheduled_at=NOW - 3590)),
            ShortageReason.START_OVERDUE,
            "new has been loading for 3590 s, 9 of 10 starts take 180 s",
            id="hangs-while-loading",
        ),
    ],
)
def test_no_more_are_asked_for_than_are_asked_for_already(target: Target, reason: str, message: str) -> None:
    found = procured(12, target)
    assert found.felt
    assert found.shortage is not None
    assert (found.shortage.reason, found.shortage.message) == (reason, message)
    assert found.replicas == target.replicas
    assert message in found.because


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(pool(*pods(4), *waiting(2, age=100.0)), id="asked-for-a-moment-ago"),
        pytest.param(
            pool(*pods(4), Pod(name="new", created_at=NOW - 200, scheduled_at=NOW - 190)), id="loads-a-little-longer"
        ),
        pytest.param(
            pool(*pods(4), *waiting(1), replace(pods(1, prefix="other")[0], scheduled_at=NOW - 20)),
            id="another-found-room-just-now",
        ),
        pytest.param(pool(*failing(1, age=7200.0), *pods(4, age=3600.0)), id="younger-pods-of-the-same-template-work"),
    ],
)
def test_as_long_as_anything_moves_there_is_no_shortage(target: Target) -> None:
    found = procured(12, target)
    assert (found.replicas, found.shortage, found.felt) == (12, None, False)


def test_who_needs_no_more_than_there_is_feels_no_shortage() -> None:
    found = procured(4, pool(*pods(4), *waiting(2)))
    assert (found.replicas, found.felt) == (4, False)


def test_cordoned_replicas_return_while_nothing_can_be_had() -> None:
    cordoned = tuple(replace(pod, switch=True, cordoned=True) for pod in pods(2, prefix="out"))
    found = procured(5, pool(*pods(4), *cordoned, *waiting(2)))
    # All of them: who is deleted now cannot be replaced. 4 work, 2 wait for a GPU, 2 come back.
    assert found.replicas == 8


def test_a_pod_that_kubernetes_does_not_try_anew_gets_a_probe_beside_it_ever_more_rarely() -> None:
    target, known, asked, at = pool(*pods(2, age=7200.0), *failing(1)), None, [], 0.0
    while at <= 3600.0:
        found = procured(9, target, known=known, now=NOW + at)
        known = found.shortage
        if found.replicas > target.replicas:
            asked.append(at)
            probe = Pod(name=f"probe-{at:.0f}", created_at=NOW + at, stopped=True, failure_message=NO_IMAGE)
            target = replace(target, replicas=target.replicas + 1, pods=(*target.pods, probe))
        at += TICK
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert asked[0] == PATIENCE
    assert gaps == sorted(gaps)
    assert max(gaps) <= LONGEST_BACKOFF_SECONDS
    assert len(asked) <= 6


def test_what_kubernetes_tries_anew_by_itself_is_its_own_probe() -> None:
    found = procured(12, pool(*pods(4), *waiting(2)), known=shortage(retry_at=NOW - 1))
    assert found.replicas == 6


def test_a_start_that_finds_room_ends_the_shortage_and_its_backoff() -> None:
    placed = Pod(name="new-0", created_at=NOW - 600, scheduled_at=NOW - 10)
    found = procured(12, pool(*pods(4), placed, *waiting(1)), known=shortage(probes=5))
    assert (found.replicas, found.shortage) == (12, None)


def test_an_image_that_can_be_pulled_again_ends_the_shortage() -> None:
    started = replace(pods(1, prefix="new")[0], ready_at=NOW - 5)
    known = shortage(reason=ShortageReason.CONTAINER_NOT_STARTING, message=NO_IMAGE)
    assert procured(12, pool(*pods(4), started), known=known).shortage is None


def test_after_its_starts_were_taken_back_a_pool_tries_one_before_all() -> None:
    known = shortage(retry_at=NOW - 1)
    found = procured(12, pool(*pods(4)), known=known)
    assert found.replicas == 5
    later = procured(12, pool(*pods(4), *waiting(1, age=15.0)), known=found.shortage, now=NOW + TICK)
    assert later.replicas == 5


def test_a_shortage_of_long_ago_is_forgotten() -> None:
    known = shortage(declared_at=NOW - FORGET_SECONDS - 1)
    assert procured(12, pool(*pods(4)), known=known) == Procured(12, "nothing is on its way", None)


def short_service() -> Service:
    of = service(6, behavior=AT_ONCE)
    return replace(of, target=pool(*pods(4), *waiting(2)))


def decided_short() -> Decision:
    # 96 requests at 8 a replica: 12 replicas.
    return decide(service=short_service(), observation=seen(32, 64), demand=demand(96.0), memory=WATCHED, now=NOW)[0]


def test_the_decision_says_that_capacity_is_short() -> None:
    decision = decided_short()
    assert (decision.desired, decision.reason, decision.supply_short) == (6, Reason.SUPPLY_SHORT, True)
    assert rung(decision, Rung.BEHAVIOR).replicas > rung(decision, Rung.SUPPLY).replicas == 6
    assert NO_GPU in decision.message
    assert decision.placement is not None
    assert not decision.placement.changes


@settings(deadline=None, max_examples=60)
@given(
    needs=st.lists(st.floats(0, 160), min_size=1, max_size=40),
    gpus=st.integers(0, 12),
    cold_start_ticks=st.integers(1, 20),
)
def test_a_repeated_shortage_never_asks_again_for_what_is_on_its_way(
    needs: list[float], gpus: int, cold_start_ticks: int
) -> None:
    """The target follows every decision; pods load for a while, and those beyond the GPUs find no node."""
    replicas, memory, born = 2, ServiceMemory(met=True), dict.fromkeys(range(2), -1000)
    largest = 2
    for tick, slots in enumerate(needs):
        now = NOW + TICK * tick
        target = Target(
            replicas=replicas,
            ready_replicas=0,
            pods=tuple(_pod(n, born=born[n], tick=tick, gpus=gpus, loads=cold_start_ticks) for n in range(replicas)),
        )
        ready = sum(pod.ready for pod in target.pods)
        observation = seen(slots, ready_pods=ready, reporting_pods=ready)
        of = replace(service(replicas, behavior=AT_ONCE), target=target)
        decision, memory = decide(service=of, observation=observation, demand=demand(slots), memory=memory, now=now)
        largest = max(largest, rung(decision, Rung.REACTIVE).replicas)
        assert decision.placement is not None
        replicas = decision.placement.replicas
        born = {n: born.get(n, tick) for n in range(replicas)}
        assert replicas <= largest, "never more than the largest number that was ever needed at once"


def _pod(number: int, *, born: int, tick: int, gpus: int, loads: int) -> Pod:
    created = NOW + TICK * born
    if number >= gpus:
        return Pod(name=f"p-{number:02}", created_at=created, unschedulable_message=NO_GPU)
    ready = tick - born >= loads
    ready_at = created + TICK * loads if ready else None
    return Pod(name=f"p-{number:02}", created_at=created, scheduled_at=created, ready=ready, ready_at=ready_at)


def test_an_hour_without_gpus_leaves_the_ask_where_it_was_when_they_ran_out() -> None:
    """240 ticks of 15 s with a queue that keeps growing, and 4 GPUs."""
    replicas, memory, born, asked = 4, WATCHED, dict.fromkeys(range(4), -1000), []
    for tick in range(240):
        target = Target(
            replicas=replicas,
            ready_replicas=4,
            pods=tuple(_pod(n, born=born[n], tick=tick, gpus=4, loads=8) for n in range(replicas)),
        )
        slots = 40.0 + tick
        decision, memory = decide(
            service=replace(service(replicas), target=target),
            observation=seen(32, slots - 32),
            demand=demand(slots),
            memory=memory,
            now=NOW + TICK * tick,
        )
        assert decision.placement is not None
        replicas = decision.placement.replicas
        born = {n: born.get(n, tick) for n in range(replicas)}
        asked.append(replicas)
    # Asked for within the first P90 of a start (180 s, 12 ticks), and never again.
    assert len(set(asked[13:])) == 1
    assert asked[-1] <= asked[12] <= 8
    assert decision.supply_short


def test_a_shortage_that_changes_its_reason_is_judged_by_the_new_one_at_once() -> None:
    """A start hung and is gone; now a quota refuses more. A pod that was placed since then is a move for the quota."""
    placed = replace(waiting(1, age=60, unschedulable_message="")[0], scheduled_at=NOW - 50)
    target = pool(placed, replicas=4, refused_message=QUOTA)
    known = shortage(reason=ShortageReason.START_OVERDUE, declared_at=NOW - 50)
    first = procured(4, target, known=known)
    assert procured(4, target, known=first.shortage) == first
