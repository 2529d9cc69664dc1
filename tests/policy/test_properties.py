"""What must hold of every decision, whatever is seen, needed, allowed and remembered."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand.estimate import Demand
from longtail.demand.observation import MISSING, Observation, Quality, Signal
from longtail.policy.behavior import Recommendation, ScaleEvent
from longtail.policy.decision import Decision, Reason, Shortage, ShortageReason
from longtail.policy.fleet import (
    Behavior,
    Fallback,
    Limits,
    Mode,
    Pod,
    PolicyType,
    ReplicasWriter,
    ScalingPolicy,
    ScalingRules,
    SelectPolicy,
    Service,
    Target,
    ZeroRules,
)
from longtail.policy.idle_gaps import IdleClock
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory

from .worlds import NOW, demand, pods, service

untimed = settings(deadline=None)
levels = st.floats(0, 4000)
counts = st.integers(1, 60)
recent = st.floats(0, 4000).map(lambda age: NOW - age)

known = st.builds(
    Signal,
    value=levels,
    age_seconds=st.floats(0, 300),
    quality=st.sampled_from([Quality.FRESH, Quality.PARTIAL, Quality.STALE]),
)
signals = st.one_of(known, st.just(MISSING))
fresh = st.builds(Signal, value=levels)

policies = st.builds(
    ScalingPolicy,
    type=st.sampled_from(PolicyType),
    value=st.integers(1, 200),
    period_seconds=st.integers(1, 1800),
)
directions = st.builds(
    ScalingRules,
    stabilization_window_seconds=st.sampled_from([0, 15, 300, 3600]),
    policies=st.lists(policies, min_size=1, max_size=3).map(tuple),
    select_policy=st.sampled_from(SelectPolicy),
    tolerance=st.sampled_from([0.0, 0.1]),
)
limits = st.tuples(counts, counts, st.builds(Behavior, scale_up=directions, scale_down=directions)).map(
    lambda drawn: Limits(min_replicas=min(drawn[:2]), max_replicas=max(drawn[:2]), behavior=drawn[2])
)


@st.composite
def targets(draw: st.DrawFn, replicas: int) -> Target:
    """Pods of every kind, those that will never come among them; set by whoever."""
    kinds = draw(st.lists(st.sampled_from([*_PODS]), min_size=min(replicas, 6), max_size=min(replicas, 6)))
    some = tuple(replace(_PODS[kind], name=f"p-{n}") for n, kind in enumerate(kinds))
    writer = draw(
        st.one_of(st.none(), st.builds(ReplicasWriter, name=st.just("kubectl"), at=st.one_of(st.none(), recent)))
    )
    return Target(
        replicas=replicas,
        ready_replicas=replicas,
        pods=draw(st.sampled_from([some, pods(replicas)])),
        refused_message=draw(st.sampled_from(["", "", "exceeded quota"])),
        writer=writer,
    )


_PODS = {
    "ready": Pod(name="", created_at=NOW - 3600, scheduled_at=NOW - 3600, ready_at=NOW - 3500, ready=True),
    "cordoned": Pod(
        name="",
        created_at=NOW - 3600,
        ready_at=NOW - 3500,
        ready=True,
        switch=True,
        cordoned=True,
        cordoned_at=NOW - 60,
    ),
    "no-gpu": Pod(name="", created_at=NOW - 900, unschedulable_message="Insufficient nvidia.com/gpu"),
    "no-image": Pod(
        name="", created_at=NOW - 900, scheduled_at=NOW - 900, stopped=True, failure_message="ErrImagePull"
    ),
    "loading": Pod(name="", created_at=NOW - 60, scheduled_at=NOW - 50),
}


@st.composite
def services(draw: st.DrawFn) -> Service:
    chosen = draw(limits)
    anywhere = draw(st.one_of(st.none(), st.integers(0, 70)))
    inside = draw(st.integers(chosen.min_replicas, chosen.max_replicas))
    of = replace(
        service(draw(st.sampled_from([anywhere, inside, inside])), mode=draw(st.sampled_from(Mode))),
        limits=chosen,
        zero=draw(st.sampled_from([None, None, ZeroRules(idle_seconds=300.0)])),
        fallback=draw(st.one_of(st.none(), st.builds(Fallback, after_seconds=st.just(180.0), replicas=counts))),
    )
    return of if of.target is None else replace(of, target=draw(targets(of.target.replicas)))


@st.composite
def observations(draw: st.DrawFn, core: st.SearchStrategy[Signal] = signals) -> Observation:
    ready = draw(st.integers(0, 60))
    return Observation(
        at_seconds=NOW,
        running_requests=draw(core),
        waiting_requests=draw(core),
        gateway_waiting_requests=draw(signals),
        activation=draw(signals),
        kv_used_tokens=draw(signals),
        gpu_active_ratio=draw(st.one_of(st.just(MISSING), st.builds(Signal, value=st.floats(0, 1)))),
        ready_pods=ready,
        reporting_pods=draw(st.integers(0, ready)),
    )


def _shortage(declared: float, retry_in: float) -> Shortage:
    reason = ShortageReason.CONTAINER_NOT_STARTING
    return Shortage(reason, "ErrImagePull", since=declared - 180, declared_at=declared, retry_at=NOW + retry_in)


maybe = st.one_of(st.none(), levels)
demands = st.builds(
    lambda slots, kv, upper, rise, kv_upper, kv_rise: demand(
        slots,
        kv_now_tokens=None if kv is None else 1000 * kv,
        slots_upper=upper,
        slots_peak=None if upper is None or rise is None else upper + rise,
        kv_upper_tokens=None if kv_upper is None else 1000 * kv_upper,
        kv_peak_tokens=None if kv_upper is None or kv_rise is None else 1000 * (kv_upper + kv_rise),
    ),
    *[maybe] * 6,
)
memories = st.builds(
    ServiceMemory,
    recommendations=st.lists(st.builds(Recommendation, at=recent, replicas=counts), max_size=6).map(tuple),
    events=st.lists(st.builds(ScaleEvent, at=recent, change=st.integers(-20, 20)), max_size=4).map(tuple),
    decided_at=st.one_of(st.none(), recent),
    current=counts,
    desired=counts,
    watched_since=st.one_of(st.none(), recent),
    watched_at=st.one_of(st.none(), st.just(NOW - 15), recent),
    reported_at=st.dictionaries(st.sampled_from(["KV cache use", "gateway queue"]), recent),
    blind_since=st.one_of(st.none(), recent),
    shortage=st.one_of(st.none(), st.builds(_shortage, declared=recent, retry_in=st.floats(-900, 900))),
    idle_clock=st.builds(IdleClock, since=st.one_of(st.none(), recent), confirmed_at=st.just(NOW - 15)),
)


def made(of: Service, seen: Observation, need: Demand, memory: ServiceMemory) -> Decision:
    return decide(service=of, observation=seen, demand=need, memory=memory, now=NOW)[0]


@untimed
@given(of=services(), seen=observations(), need=demands, memory=memories)
def test_a_decision_stays_within_the_limits_unless_it_holds(
    of: Service, seen: Observation, need: Demand, memory: ServiceMemory
) -> None:
    decision = made(of, seen, need, memory)
    asleep = of.zero is not None and decision.desired == 0
    assert decision.hold or asleep or of.limits.min_replicas <= decision.desired <= of.limits.max_replicas


@untimed
@given(of=services(), seen=observations(), need=demands, memory=memories)
def test_to_hold_is_to_change_nothing(of: Service, seen: Observation, need: Demand, memory: ServiceMemory) -> None:
    decision = made(of, seen, need, memory)
    assert decision.message
    if decision.hold:
        assert decision.desired == decision.current
        assert decision.reason not in {Reason.SCALE_UP, Reason.SCALE_DOWN}
    if decision.ladder:
        assert decision.ladder[-1].replicas == decision.desired


@untimed
@given(of=services(), seen=observations(), need=demands, memory=memories)
def test_only_what_is_fresh_and_whole_lowers_a_pool(
    of: Service, seen: Observation, need: Demand, memory: ServiceMemory
) -> None:
    decision = made(of, seen, need, memory)
    if decision.desired < decision.current:
        assert seen.running_requests.fresh
        assert seen.waiting_requests.fresh
        assert seen.reporting_pods == seen.ready_pods > 0
        assert need.slots_now is not None


@untimed
@given(
    of=services(),
    seen=observations(),
    running_is_gone=st.booleans(),
    need=demands,
    memory=memories,
)
def test_missing_never_lowers(
    of: Service, seen: Observation, running_is_gone: bool, need: Demand, memory: ServiceMemory
) -> None:
    gone = replace(seen, running_requests=MISSING) if running_is_gone else replace(seen, waiting_requests=MISSING)
    decision = made(of, gone, need, memory)
    assert decision.desired >= decision.current


@untimed
@given(of=services(), seen=observations(fresh), need=demands, more=levels, kv_more=levels, memory=memories)
def test_more_demand_never_gives_fewer_replicas(
    of: Service, seen: Observation, need: Demand, more: float, kv_more: float, memory: ServiceMemory
) -> None:
    def raised(value: float | None, by: float) -> float | None:
        return None if value is None else value + by

    larger = replace(
        need,
        slots_now=raised(need.slots_now, more),
        slots_upper=raised(need.slots_upper, more),
        slots_peak=raised(need.slots_peak, more),
        kv_now_tokens=raised(need.kv_now_tokens, 1000 * kv_more),
        kv_upper_tokens=raised(need.kv_upper_tokens, 1000 * kv_more),
        kv_peak_tokens=raised(need.kv_peak_tokens, 1000 * kv_more),
    )
    assert made(of, seen, larger, memory).desired >= made(of, seen, need, memory).desired


@untimed
@given(of=services(), seen=observations(), need=demands, memory=memories)
def test_deciding_twice_at_the_same_time_decides_the_same(
    of: Service, seen: Observation, need: Demand, memory: ServiceMemory
) -> None:
    once, after = decide(service=of, observation=seen, demand=need, memory=memory, now=NOW)
    again, _ = decide(service=of, observation=seen, demand=need, memory=after, now=NOW)
    assert again == once


@settings(deadline=None, max_examples=40)
@given(seen=observations(fresh), need=demands, replicas=counts, lowest=counts, highest=counts)
def test_a_world_that_does_not_change_comes_to_rest(
    seen: Observation, need: Demand, replicas: int, lowest: int, highest: int
) -> None:
    """The target follows every decision; after ten minutes of the same demand nothing moves any more."""
    memory, sizes = ServiceMemory(), []
    for tick in range(50):
        of = service(replicas, min_replicas=min(lowest, highest), max_replicas=max(lowest, highest))
        decision, memory = decide(service=of, observation=seen, demand=need, memory=memory, now=NOW + 15.0 * tick)
        replicas = decision.desired
        sizes.append(replicas)
    assert len(set(sizes[-10:])) == 1
