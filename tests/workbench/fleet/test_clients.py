"""Clients that give up and ask again, and what a limit of thinking does to what arrives."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.observation import Quality
from longtail.policy.decision import Decision, Effort, Reason
from longtail.policy.fleet import EffortLevel, EffortPolicy, EffortRules
from longtail.workbench.fleet.arrivals import Arrivals, limited
from longtail.workbench.fleet.engines import Engines
from longtail.workbench.fleet.engines_clients import ANSWERED, DEADLINE, ClientEngines
from longtail.workbench.fleet.meters import ABORTED, FINISHED, FINISHED_OUTPUT, GENERATED
from longtail.workbench.fleet.pilots import Fixed, longtail
from longtail.workbench.fleet.pool import Orders, Pool
from longtail.workbench.fleet.scrape import Scraper
from longtail.workbench.fleet.setting import Clients, ReplicaSize, Requests, Routing, Setting
from longtail.workbench.fleet.simulation import Sight, simulate
from longtail.workbench.traces.trace import Trace

from .disturbed import PACE, disturb, opened, operations, trace_of

HOUR = 3600.0


def engines_of(replicas, slots, clients, *, routing=Routing.LEAST_LOADED):
    return opened(ClientEngines(ReplicaSize(slots=slots, seconds_per_token=PACE), routing, clients), replicas)


requests = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=40)
patience = st.builds(Clients, st.sampled_from([3.0, 7.5, 20.0]), st.integers(0, 2), st.sampled_from([0.0, 4.0]))


@given(requests, st.integers(1, 3), st.integers(1, 3), st.sampled_from(Routing), st.integers(1, 5))
def test_clients_that_never_give_up_are_served_like_any_others(pairs, replicas, slots, routing, steps):
    trace = trace_of(pairs)
    plain = opened(Engines(ReplicaSize(slots=slots, seconds_per_token=PACE), routing), replicas)
    patient = engines_of(replicas, slots, Clients(timeout_seconds=1e9), routing=routing)
    for engines in (plain, patient):
        arrivals = Arrivals(Requests.of(trace).chunks())
        for at in np.linspace(0.0, 2000.0, steps + 1):
            engines.advance(arrivals, float(at))
    assert sorted(request[:6] for request in patient.finished) == sorted(plain.finished)
    assert not patient.aborted
    assert not patient.expired


@given(requests, patience, operations, st.sampled_from(Routing))
def test_every_request_is_answered_given_up_under_way_or_about_to_be_asked_again(pairs, clients, operations, routing):
    engines = engines_of(2, 2, clients, routing=routing)
    arrivals = Arrivals(Requests.of(trace_of(pairs)).chunks())
    for at, killed in disturb(engines, arrivals, operations):
        under_way = engines.running_requests + engines.waiting_requests + len(engines._again)
        assert engines.arrived_requests == len(engines.asked)
        assert len(engines.asked) == len(engines.finished) + len(engines.lost) + under_way
        assert len(engines.started) == len(engines.finished) + len(engines.aborted) + engines.running_requests + killed
        assert engines.door_requests == engines.arrived_requests + engines.retries
        assert engines.running_requests == sum(engines.running(row) for row in range(engines.rows))
        assert engines.queued_prompt_tokens == sum(attempt[1] for attempt in engines.queue)
        deadlines = [attempt[3] for attempt in engines.queue]
        assert deadlines == sorted(deadlines)
        assert all(deadline > at for deadline in deadlines)


@given(requests, patience, st.sampled_from([None, 0, 2]))
def test_nobody_is_answered_late_and_nobody_gives_up_early_or_asks_too_often(pairs, clients, limit):
    engines = ClientEngines(ReplicaSize(slots=2, seconds_per_token=PACE), Routing.PACK, clients, queue_limit=limit)
    engines.open(engines.add_row())
    engines.advance(Arrivals(Requests.of(trace_of(pairs)).chunks()), 10_000.0)
    for end, _, start, arrival, *_, answered in engines.finished:
        assert start + PACE <= end == answered <= arrival + clients.timeout_seconds + 1e-9
    for request in engines.aborted:
        assert request[0] == request[DEADLINE] < request[ANSWERED]
    assert all(end == pytest.approx(arrival + clients.timeout_seconds) for arrival, end in engines.expired)
    attempts = Counter((request[7], request[4], request[9]) for request in engines.started)
    alike = Counter((at / 10.0, prompt, output) for at, prompt, output in pairs)
    assert all(count <= alike[key] * (1 + clients.retries) for key, count in attempts.items())
    assert len(engines.finished) + len(engines.lost) == len(pairs)
    assert len(engines.aborted) + len(engines.expired) + engines.turned_away == engines.retries + len(engines.lost)
    assert engines.turned_away == 0 or limit is not None


def test_a_client_gives_up_asks_again_and_gives_up_for_good():
    """One slot, 10 s of patience: 30 tokens take 15 s and are never answered, each attempt takes the whole 10 s."""
    engines = engines_of(1, 1, Clients(timeout_seconds=10.0, retries=2, pause_seconds=1.0))
    engines.advance(Arrivals(Requests.of(trace_of([(0, 1, 30)])).chunks()), 60.0)
    assert [(request[2], request[0]) for request in engines.aborted] == [(0.0, 10.0), (11.0, 21.0), (22.0, 32.0)]
    assert (engines.retries, engines.lost, engines.finished) == (2, [0.0], [])


def test_a_waiting_request_leaves_the_queue_and_the_slot_of_one_that_runs_goes_to_the_next():
    """Both give up at 10 s, one of them in the queue; the third, of 5 s, comes in time for the slot."""
    engines = engines_of(1, 1, Clients(timeout_seconds=10.0, retries=0))
    engines.advance(Arrivals(Requests.of(trace_of([(0, 1, 90), (0, 1, 90), (60, 1, 10)])).chunks()), 60.0)
    assert engines.expired == [(0.0, 10.0)]
    assert [(request[2], request[0]) for request in engines.finished] == [(10.0, 15.0)]


def test_a_killed_request_is_sent_again_and_its_client_is_no_more_patient_for_that():
    engines = engines_of(2, 1, Clients(timeout_seconds=10.0, retries=0))
    arrivals = Arrivals(Requests.of(trace_of([(0, 1, 4), (0, 1, 12), (10, 1, 4)])).chunks())
    engines.advance(arrivals, 1.5)
    engines.kill(1, at_seconds=1.5)
    assert [(attempt[0], attempt[3]) for attempt in engines.queue] == [(1.5, 10.0), (1.0, 11.0)]
    engines.advance(arrivals, 60.0)
    assert [(request[2], request[0]) for request in engines.finished] == [(0.0, 2.0), (2.0, 8.0), (8.0, 10.0)]


def test_who_finds_the_queue_full_is_turned_away_and_asks_again_later():
    """One slot for 6 s, a queue of one: the third is turned away at 2 s and at 5 s, and waits at 8 s."""
    engines = ClientEngines(
        ReplicaSize(slots=1, seconds_per_token=PACE), Routing.LEAST_LOADED, Clients(60.0, 2, 3.0), queue_limit=1
    )
    engines.open(engines.add_row())
    engines.advance(Arrivals(Requests.of(trace_of([(0, 1, 12), (10, 1, 12), (20, 1, 12)])).chunks()), 60.0)
    assert [(request[3], request[2]) for request in engines.finished] == [(0.0, 0.0), (1.0, 6.0), (8.0, 12.0)]
    assert (engines.turned_away, engines.retries, engines.lost) == (2, 2, [])


# --- a limit of thinking


@pytest.mark.parametrize(
    ("output", "answer", "limit", "expected"),
    [
        pytest.param(3000, 400, None, 3000, id="no limit"),
        pytest.param(3000, 400, 2048, 2448, id="thinking is cut and the answer is not"),
        pytest.param(2448, 400, 2048, 2448, id="exactly as much as allowed"),
        pytest.param(900, 400, 2048, 900, id="shorter than the limit"),
        pytest.param(900, 900, 0, 900, id="no thinking to cut"),
        pytest.param(900, 0, 0, 1, id="thinking only, and none of it allowed"),
    ],
)
def test_a_limit_cuts_thinking_alone(output, answer, limit, expected):
    assert limited(output, answer, thinking_tokens=limit) == expected
    trace = Trace("t", np.zeros(1), np.ones(1, int), np.array([output]), np.array([output - answer]))
    arrivals = Arrivals(Requests.of(trace).chunks())
    arrivals.limit(limit)
    assert [taken for _, _, taken in arrivals.take(1.0)] == [expected]
    assert (arrivals.capped_requests, arrivals.cut_tokens) == (int(expected < output), output - expected)


def test_a_limit_holds_for_what_arrives_from_then_on_and_where_reasoning_is_unknown_an_answer_is_assumed():
    arrivals = Arrivals(Requests.of(trace_of([(0, 1, 5000), (10, 1, 5000), (20, 1, 5000)])).chunks(), answer_tokens=300)
    outputs = [output for _, _, output in arrivals.take(0.5)]
    for limit, until in ((1000, 1.5), (None, 9.0)):
        arrivals.limit(limit)
        outputs += [output for _, _, output in arrivals.take(until)]
    assert outputs == [5000, 1300, 5000]


def test_a_request_that_is_asked_again_comes_under_the_limit_of_that_time():
    trace = trace_of([(0, 1, 30)], reasoning=np.array([26]))
    engines = engines_of(1, 1, Clients(timeout_seconds=10.0, retries=1))
    arrivals = Arrivals(Requests.of(trace).chunks())
    engines.advance(arrivals, 9.0)
    arrivals.limit(6)
    engines.advance(arrivals, 60.0)
    assert [(request[2], request[0], request[5]) for request in engines.finished] == [(10.0, 15.0, 10)]


# --- whole runs


class Scripted:
    """Limits of thinking by time, on a fixed number of replicas."""

    name = "scripted"
    period_seconds = 15.0

    def __init__(self, replicas: int, *limits: tuple[float, int | None]) -> None:
        self._replicas = replicas
        self._limits = limits

    def decide(self, sight: Sight) -> Orders:
        limit = None
        for since, tokens in self._limits:
            limit = tokens if since <= sight.at_seconds else limit
        return Orders(replicas=self._replicas, thinking_tokens=limit)


CROWD = Setting(initial_replicas=4, max_replicas=4, clients=Clients(timeout_seconds=120.0))


def test_a_run_says_what_clients_got(busy):
    """216 requests in flight on 96 slots: most give up, and answers are written for nobody."""
    run = simulate(Requests.of(busy, duration_seconds=2 * HOUR), CROWD, Fixed(4))
    answers = run.answers
    assert answers.answered + answers.given_up == run.arrived_requests == len(busy)
    assert answers.aborted_requests + answers.expired_requests == answers.retries + answers.given_up
    assert 0 < answers.answered_first < answers.answered < 0.7 * len(busy)
    assert run.goodput == pytest.approx(answers.answered / run.gpu_hours.total)
    assert answers.aborted_tokens * 0.05 < 4 * 24 * 2 * HOUR
    assert run.timeline.asked.sum() == len(busy)
    assert run.timeline.answered.sum() == answers.answered
    assert run.timeline.answered_first.sum() == answers.answered_first
    assert (answers.capped_requests, answers.level_changes) == (0, 0)
    assert run.waits.requests > len(busy), "every attempt waits"


def test_less_thinking_from_the_start_answers_more_and_is_accounted_for(busy):
    limited_run = simulate(
        Requests.of(busy, duration_seconds=2 * HOUR), CROWD, Scripted(4, (15.0, 500), (2400.0, None))
    )
    free = simulate(Requests.of(busy, duration_seconds=2 * HOUR), CROWD, Fixed(4))
    assert limited_run.goodput > 1.1 * free.goodput
    assert limited_run.answers.level_changes == 2
    assert 0 < limited_run.answers.capped_requests < limited_run.answers.answered
    assert limited_run.answers.cut_tokens > 500 * limited_run.answers.capped_requests
    levels = limited_run.timeline.thinking_tokens
    assert [levels[5], levels[39], levels[50]] == [500.0, 500.0, -1.0]


def test_without_clients_that_give_up_everybody_is_answered_and_what_was_cut_is_known(busy):
    setting = Setting(initial_replicas=40, max_replicas=40)
    run = simulate(Requests.of(busy, duration_seconds=HOUR), setting, Scripted(40, (15.0, 500)))
    after = busy.arrival_seconds > 15.0
    cut = np.maximum(busy.output_tokens[after] - 1000, 0)
    assert (run.answers.capped_requests, run.answers.cut_tokens) == ((cut > 0).sum(), cut.sum())
    assert run.answers.answered == run.answers.answered_first == run.finished_requests
    assert (run.answers.given_up, run.answers.retries, run.answers.aborted_tokens) == (0, 0, 0.0)


@pytest.mark.parametrize("counts_aborts", [False, True])
def test_meters_keep_the_tokens_of_what_was_given_up_and_count_it_only_where_the_engine_does(busy, counts_aborts):
    setting = replace(CROWD, counts_aborts=counts_aborts)
    pool = Pool(Requests.of(busy), setting)
    pool.start_measuring()
    pool.advance(1800.0)
    counters = Scraper(pool).scrape().counters.sum(axis=0)
    answers = pool.answers.result()
    assert counters[FINISHED] == answers.answered
    running = sum((1800.0 - request[2]) / 0.05 for request in pool.engines._heap)
    assert counters[GENERATED] == pytest.approx(counters[FINISHED_OUTPUT] + answers.aborted_tokens + running)
    assert counters[ABORTED] == (answers.aborted_requests + answers.expired_requests if counts_aborts else 0)


@pytest.mark.parametrize("policy", EffortPolicy)
def test_gateways_hear_of_a_level_only_where_it_is_published(policy):
    levels = (EffortLevel("high"), EffortLevel("low", thinking_tokens=1024))
    pilot = longtail(CROWD, effort=EffortRules(policy, levels))
    pool = Pool(Requests.of(trace_of([(0, 1, 1)])), CROWD)
    sight = Sight(15.0, 4, tuple(pool.deployment.pods), (), reachable=True, version=0)
    service, observation = pilot.pool.see(sight)
    assert service.effort is not None
    assert observation.running_requests.quality is Quality.MISSING
    decision = Decision(
        4, 4, hold=True, reason=Reason.METRICS_MISSING, message="", effort=Effort(1, levels[1], 0.0, "")
    )
    orders = pilot.pool.orders(sight, decision)
    assert orders.thinking_tokens == (1024 if policy is EffortPolicy.PUBLISH else None)


@pytest.mark.parametrize(
    "wrong", [{"timeout_seconds": 0.0}, {"retries": -1}, {"pause_seconds": -1.0}, {"timeout_seconds": float("inf")}]
)
def test_clients_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Clients(**wrong)


@pytest.mark.parametrize("wrong", [{"queue_limit": -1, "clients": Clients()}, {"queue_limit": 5}])
def test_a_queue_limit_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="queue_limit"):
        Setting(**wrong)


def test_clients_that_give_up_are_not_modelled_with_caches_that_fill():
    with pytest.raises(ValueError, match="kv_limits"):
        Setting(replica=ReplicaSize(kv_limits=True), clients=Clients())
