"""The engine model: exact accounting, limits, order, and equality with a step-by-step simulation."""

import dataclasses
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.workbench.engine.model import Replica
from longtail.workbench.engine.profiles import PROFILES, EngineProfile
from longtail.workbench.engine.request import Outcome, Recorder, Request

# Small enough that slots, KV cache and prefill budget all bind within a few requests.
TINY = EngineProfile(
    name="tiny",
    model="tiny",
    step_base_seconds=0.0107,
    step_seconds_per_sequence=0.00031,
    step_seconds_per_kv_token=0.0000171,
    prefill_tokens_per_second=2311.0,
    kv_capacity_tokens=400,
    max_model_len_tokens=200,
    slots=5,
    prefill_budget_tokens=64,
)
ROOMY = EngineProfile(
    name="roomy",
    model="roomy",
    step_base_seconds=0.01,
    step_seconds_per_sequence=0.0,
    step_seconds_per_kv_token=0.0,
    prefill_tokens_per_second=1000.0,
    kv_capacity_tokens=100_000,
    max_model_len_tokens=10_000,
    slots=2,
)


@dataclass
class Journal(Recorder):
    """Everything an engine told."""

    started_ids: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    first_token_ids: list[int] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def started(self, request, *, at_seconds, waited_seconds):
        self.started_ids.append(request.id)
        self.waited.append(waited_seconds)

    def first_token(self, request, *, after_seconds):
        self.first_token_ids.append(request.id)

    def finished(self, outcome):
        self.outcomes.append(outcome)


def request(number: int, *, at: float = 0.0, prompt: int = 10, output: int = 20, cap: int | None = None) -> Request:
    return Request(id=number, arrived_seconds=at, prompt_tokens=prompt, output_tokens=output, max_tokens=cap or 10_000)


def draw(seed: int, *, count: int, span_seconds: float) -> list[Request]:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, span_seconds, count))
    return [
        request(i, at=float(t), prompt=int(rng.integers(1, 100)), output=int(rng.integers(1, 101)))
        for i, t in enumerate(times)
    ]


# ---------------------------------------------------------------- one request, by hand


def test_a_lone_request_takes_prefill_and_one_step_per_token():
    journal = Journal()
    engine = Replica(profile=ROOMY, recorders=[journal])
    engine.submit(request(1, at=2.0, prompt=100, output=50), at_seconds=2.0)
    engine.advance(10.0)
    (outcome,) = journal.outcomes
    # 100 prompt tokens at 1000/s and one step of 10 ms to the first token, 49 further steps to the last.
    assert outcome.scheduled_seconds == 2.0
    assert outcome.first_token_seconds == pytest.approx(2.0 + 0.1 + 0.01)
    assert outcome.finished_seconds == pytest.approx(2.0 + 0.1 + 50 * 0.01)
    assert outcome.reason == "stop"


def test_an_output_that_reaches_the_clients_cap_finishes_with_reason_length():
    journal = Journal()
    engine = Replica(profile=ROOMY, recorders=[journal])
    engine.submit(request(1, output=50, cap=50), at_seconds=0.0)
    engine.advance(10.0)
    assert journal.outcomes[0].reason == "length"


def test_tokens_are_counted_live_and_finished_tokens_at_the_end():
    engine = Replica(profile=ROOMY)
    engine.submit(request(1, prompt=100, output=50), at_seconds=0.0)
    engine.advance(0.10)
    assert engine.reading().generated_tokens == 0
    assert engine.reading().kv_used_tokens == 100
    engine.advance(0.1351)  # first token at 0.11, then one per 10 ms
    now = engine.reading()
    assert (now.generated_tokens, now.finished_tokens, now.in_flight_tokens) == (3, 0, 3)
    assert (now.kv_used_tokens, now.owed_tokens, now.first_tokens) == (103, 47, 1)
    engine.advance(1.0)
    now = engine.reading()
    assert (now.generated_tokens, now.finished_tokens, now.in_flight_tokens) == (50, 50, 0)
    assert (now.kv_used_tokens, now.owed_tokens, now.running_requests) == (0, 0, 0)


def test_a_paged_cache_holds_whole_blocks():
    engine = Replica(profile=ROOMY)
    engine.submit(request(1, prompt=100, output=50), at_seconds=0.0)
    engine.submit(request(2, prompt=65, output=50), at_seconds=0.0)
    engine.advance(0.15)  # the second joins after the first one's first token, at 0.11
    assert engine.kv_used_blocks(32) == 4 + 3  # 101 tokens need four blocks of 32, 65 need three
    assert engine.kv_used_blocks(1) == engine.kv_used_tokens == 101 + 65
    engine.advance(0.466)  # both write at 0.185 and then every 10 ms: 29 tokens each
    assert engine.kv_used_tokens == 130 + 94
    assert engine.kv_used_blocks(32) == 5 + 3
    engine.advance(5.0)
    assert engine.kv_used_blocks(32) == 0


def test_a_third_request_waits_for_one_of_two_slots():
    journal = Journal()
    engine = Replica(profile=ROOMY, recorders=[journal])
    for i, output in enumerate((100, 30, 10)):
        engine.submit(request(i, output=output), at_seconds=0.0)
    engine.advance(0.2)
    assert (engine.reading().running_requests, engine.reading().waiting_requests) == (2, 1)
    engine.advance(10.0)
    first_out = journal.outcomes[0]
    assert first_out.request.id == 1
    assert journal.outcomes[1].request.id == 2
    assert journal.outcomes[1].scheduled_seconds == first_out.finished_seconds


def test_a_request_longer_than_the_model_is_refused_by_name():
    engine = Replica(profile=TINY)
    with pytest.raises(ValueError, match="max_model_len_tokens 200"):
        engine.submit(request(1, prompt=150, output=51), at_seconds=0.0)


def test_time_does_not_go_back():
    engine = Replica(profile=TINY)
    engine.advance(5.0)
    with pytest.raises(ValueError, match="time went back"):
        engine.advance(4.0)


# ---------------------------------------------------------------- aborts and the end


def test_an_aborted_running_request_leaves_its_tokens_behind():
    journal = Journal()
    engine = Replica(profile=ROOMY, recorders=[journal])
    engine.submit(request(1, prompt=100, output=50), at_seconds=0.0)
    assert engine.abort(1, at_seconds=0.135)  # the step under way is finished first
    engine.advance(5.0)
    now = engine.reading()
    assert (now.generated_tokens, now.finished_tokens, now.aborted_tokens) == (4, 0, 4)
    assert (now.running_requests, now.kv_used_tokens, now.owed_tokens) == (0, 0, 0)
    assert now.first_tokens == 1
    assert journal.outcomes == []


def test_an_aborted_waiting_request_leaves_nothing_and_makes_room():
    journal = Journal()
    engine = Replica(profile=ROOMY, recorders=[journal])
    for i in range(4):
        engine.submit(request(i, output=100), at_seconds=0.0)
    assert engine.abort(2, at_seconds=0.5)
    assert not engine.abort(2, at_seconds=0.6)
    assert engine.request_ids == [0, 1, 3]
    engine.advance(60.0)
    assert [outcome.request.id for outcome in journal.outcomes] == [0, 1, 3]
    assert engine.reading().aborted_tokens == 0


def test_a_killed_replica_hands_back_what_it_held_with_the_tokens_lost():
    engine = Replica(profile=ROOMY)
    for i in range(3):
        engine.submit(request(i, at=0.0, prompt=100, output=50), at_seconds=0.0)
    lost = engine.kill(at_seconds=0.4)
    assert [r.id for r, _ in lost] == [0, 1, 2]
    assert sum(tokens for _, tokens in lost) == engine.reading().generated_tokens
    assert lost[2][1] == 0


def test_busy_share_is_the_share_of_the_window_with_steps():
    engine = Replica(profile=ROOMY)
    engine.submit(request(1, at=10.0, prompt=100, output=90), at_seconds=10.0)  # busy from 10 s to 11 s
    engine.advance(11.0)
    assert engine.busy_share(window_seconds=4.0) == pytest.approx(0.25)
    engine.advance(13.0)
    assert engine.busy_share(window_seconds=4.0) == pytest.approx(0.25)
    engine.advance(100.0)
    assert engine.busy_share(window_seconds=4.0) == 0.0


# ---------------------------------------------------------------- invariants


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), aborts=st.integers(0, 8))
def test_tokens_are_conserved_and_limits_kept(seed, aborts):
    rng = np.random.default_rng(seed)
    journal = Journal()
    engine = Replica(profile=TINY, recorders=[journal])
    requests = draw(seed, count=25, span_seconds=6.0)
    events = [(r.arrived_seconds, r) for r in requests]
    events += [(float(rng.uniform(0, 12)), int(rng.integers(0, 25))) for _ in range(aborts)]
    for at, what in sorted(events, key=lambda event: event[0]):
        if isinstance(what, Request):
            engine.submit(what, at_seconds=at)
        else:
            engine.abort(what, at_seconds=at)
        check_limits(engine)
    engine.advance(1000.0)
    now = engine.reading()
    assert now.finished_requests + now.aborted_requests == 25
    assert now.in_flight_tokens == now.owed_tokens == now.kv_used_tokens == 0
    assert now.finished_tokens == sum(o.request.output_tokens for o in journal.outcomes)
    assert len(journal.first_token_ids) == len(set(journal.first_token_ids)) == now.first_tokens
    # First come first served: whoever got a slot first had arrived first.
    assert journal.started_ids == sorted(journal.started_ids)


def check_limits(engine: Replica) -> None:
    now = engine.reading()
    assert now.running_requests <= engine.profile.slots
    assert 0 <= now.kv_used_tokens <= engine.profile.kv_capacity_tokens
    assert now.generated_tokens == now.finished_tokens + now.in_flight_tokens + now.aborted_tokens
    assert now.in_flight_tokens >= 0
    assert now.owed_tokens >= now.running_requests + now.waiting_requests  # everybody owes at least one


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), looks=st.lists(st.floats(0, 15), max_size=60))
def test_any_partition_of_advance_gives_the_same_bits(seed, looks):
    requests = draw(seed, count=20, span_seconds=5.0)

    def run(stops: list[float]) -> tuple[list[Outcome], object, list[float]]:
        journal = Journal()
        engine = Replica(profile=TINY, recorders=[journal])
        plan = sorted(
            [(r.arrived_seconds, 0, r) for r in requests] + [(t, 1, None) for t in stops], key=lambda e: e[:2]
        )
        for at, _, what in plan:
            if what is None:
                engine.advance(at)
                engine.reading()
            else:
                engine.submit(what, at_seconds=at)
        engine.advance(20.0)
        return journal.outcomes, engine.reading(), journal.waited

    assert run(looks) == run([])


def test_the_youngest_is_preempted_and_keeps_its_tokens():
    journal = Journal()
    engine = Replica(profile=TINY, recorders=[journal])
    # 4 x (60 + 100) = 640 tokens do not fit in 400: somebody has to go back.
    for i in range(4):
        engine.submit(request(i, prompt=60, output=100), at_seconds=0.0)
    engine.advance(1000.0)
    now = engine.reading()
    assert now.preemptions > 0
    assert now.generated_tokens == 400  # nothing is generated twice …
    assert now.prefill_tokens > now.prompt_tokens == 240  # … but contexts are computed again
    preempted = {o.request.id: o.preemptions for o in journal.outcomes}
    assert preempted[0] == 0
    assert preempted[3] >= 1
    assert journal.first_token_ids == [0, 1, 2, 3]


# ---------------------------------------------------------------- against a step-by-step oracle


def step_by_step(profile: EngineProfile, requests: list[Request]) -> tuple[dict[int, float], int]:
    """The same rules, one step at a time, with plain lists: finish times and preemptions."""
    arrivals, waiting, running = deque(requests), deque(), []
    generated = dict.fromkeys((r.id for r in requests), 0)
    finished: dict[int, float] = {}
    preemptions, now = 0, 0.0

    def kv() -> int:
        return sum(r.prompt_tokens + generated[r.id] for r in running)

    while arrivals or waiting or running:
        if not waiting and not running:
            now = max(now, arrivals[0].arrived_seconds)
        while arrivals and arrivals[0].arrived_seconds <= now:
            waiting.append(arrivals.popleft())
        prefill, admitted, budget = 0, 0, profile.prefill_budget_tokens
        if kv() + len(running) > profile.kv_capacity_tokens:
            while kv() + len(running) > profile.kv_capacity_tokens:
                waiting.appendleft(running.pop())
                preemptions += 1
        else:
            while waiting and len(running) < profile.slots:
                need = waiting[0].prompt_tokens + generated[waiting[0].id]
                if kv() + need + len(running) + 1 > profile.kv_capacity_tokens or (admitted and need > budget):
                    break
                budget -= need
                prefill += need
                admitted += 1
                running.append(waiting.popleft())
        now += profile.step_seconds(batch=len(running), kv_tokens=kv()) + prefill / profile.prefill_tokens_per_second
        for r in running:
            generated[r.id] += 1
            if generated[r.id] == r.output_tokens:
                finished[r.id] = now
        running = [r for r in running if r.id not in finished]
    return finished, preemptions


@pytest.mark.parametrize("seed", range(12))
def test_closed_forms_equal_a_step_by_step_simulation(seed):
    requests = draw(seed, count=40, span_seconds=8.0)
    journal = Journal()
    engine = Replica(profile=TINY, recorders=[journal])
    for r in requests:
        engine.submit(r, at_seconds=r.arrived_seconds)
    engine.advance(1000.0)
    finished, preemptions = step_by_step(TINY, requests)
    assert {o.request.id: o.finished_seconds for o in journal.outcomes} == pytest.approx(finished, rel=1e-9)
    assert engine.reading().preemptions == preemptions


# ---------------------------------------------------------------- profiles


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_full_batch_of_every_profile_runs_at_the_fitted_speed(name):
    profile = PROFILES[name]
    batch, context = 32, 1 + 3442
    engine = Replica(profile=profile)
    for i in range(batch):
        engine.submit(request(i, prompt=context - 1, output=6000), at_seconds=0.0)
    engine.advance(10.0)
    before = engine.reading()
    engine.advance(15.0)
    after = engine.reading()
    rate = (after.generated_tokens - before.generated_tokens) / 5
    mean_kv = (before.kv_used_tokens + after.kv_used_tokens) // 2
    assert before.running_requests == after.running_requests
    running = after.running_requests
    assert rate == pytest.approx(running / profile.step_seconds(batch=running, kv_tokens=mean_kv), rel=0.02)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("slots", 0, id="no slots"),
        pytest.param("step_base_seconds", math.nan, id="a step of NaN"),
        pytest.param("step_seconds_per_kv_token", -1.0, id="a negative slope"),
        pytest.param("max_model_len_tokens", 10**9, id="a model longer than the cache"),
    ],
)
def test_an_impossible_profile_is_refused_by_field(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(TINY, **{field: value})


def test_a_faster_profile_does_the_same_in_less_time():
    def finish(profile: EngineProfile) -> float:
        journal = Journal()
        engine = Replica(profile=profile, recorders=[journal])
        engine.submit(request(1, prompt=100, output=90), at_seconds=0.0)
        engine.advance(100.0)
        return journal.outcomes[0].finished_seconds

    assert finish(TINY.faster(10)) == pytest.approx(finish(TINY) / 10)
