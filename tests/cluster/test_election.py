"""The rules of the election: when a claim may be made, and until when its winner may write."""

import pytest

from longtail.cluster.election import Candidacy, LeaseRecord, Timing, given_back

TIME = "2026-11-24T08:00:00.000000Z"


def record(holder: str = "other", *, renewed: str = TIME, **changes) -> LeaseRecord:
    fields = {"duration_seconds": 15, "acquired": TIME, "transitions": 3} | changes
    return LeaseRecord(holder=holder, renewed=renewed, **fields)


def candidate(**changes) -> Candidacy:
    return Candidacy(identity="me", timing=Timing(), **changes)


def test_a_lease_that_is_not_there_is_claimed_at_once() -> None:
    claim = candidate().observed(None, now=5.0).claim(now=5.0, time=TIME)
    assert claim == record("me", transitions=0)


def test_a_lease_that_was_given_back_is_claimed_at_once_and_has_changed_hands() -> None:
    seen = candidate().observed(given_back(record(), time=TIME), now=5.0)
    assert seen.claim(now=5.0, time=TIME) == record("me", transitions=4)


def test_a_holder_is_left_alone_for_as_long_as_it_said_since_we_saw_it_change() -> None:
    seen = candidate().observed(record(duration_seconds=30), now=100.0)
    # Seen again, and the same: that is no sign of life.
    seen = seen.observed(record(duration_seconds=30), now=120.0)
    assert seen.claim(now=129.9, time=TIME) is None
    assert seen.claim(now=130.0, time=TIME) is not None
    renewed = seen.observed(record(renewed="2026-11-24T08:00:02.000000Z", duration_seconds=30), now=130.0)
    assert renewed.claim(now=159.9, time=TIME) is None


def test_the_times_in_the_lease_prove_nothing() -> None:
    ancient = candidate().observed(record(renewed="1970-01-01T00:00:00.000000Z"), now=0.0)
    assert ancient.claim(now=14.9, time=TIME) is None
    distant = candidate().observed(record(renewed="2999-01-01T00:00:00.000000Z"), now=0.0)
    assert distant.claim(now=15.0, time=TIME) is not None


def test_a_lease_without_a_duration_lasts_as_long_as_ours() -> None:
    seen = candidate().observed(record(duration_seconds=0), now=0.0)
    assert seen.claim(now=14.9, time=TIME) is None
    assert seen.claim(now=15.0, time=TIME) is not None


def test_a_winner_may_write_for_the_deadline_since_its_request_began() -> None:
    won = candidate().won(record("me"), began=100.0, now=104.0)
    assert won.may_write(now=109.9)
    assert not won.may_write(now=110.0)
    # The Lease is still its own, and nobody else may have it before 115: it may go on.
    assert won.claim(now=112.0, time="later") == record("me", renewed="later")


def test_whoever_sees_another_holder_stops_at_once() -> None:
    won = candidate().won(record("me"), began=100.0, now=100.0)
    assert not won.observed(record("other"), now=101.0).may_write(now=101.0)
    assert not won.observed(None, now=101.0).may_write(now=101.0)
    assert won.observed(record("me"), now=101.0).may_write(now=101.0)
    assert not won.resigned().may_write(now=101.0)


@pytest.mark.parametrize(
    ("seen", "began", "due"),
    [
        pytest.param(candidate().won(record("me"), began=100.0, now=103.0), 100.0, 102.0, id="leader-every-period"),
        pytest.param(candidate().observed(record(), now=100.0), 100.0, 102.0, id="standby-every-period"),
        pytest.param(candidate().observed(record(), now=100.0), 114.0, 115.0, id="standby-when-it-expires"),
        pytest.param(candidate().observed(record(), now=100.0), 116.0, 118.0, id="standby-that-lost-the-race"),
        pytest.param(candidate(), 100.0, 102.0, id="nothing-could-be-read"),
    ],
)
def test_when_to_try_again(seen: Candidacy, began: float, due: float) -> None:
    assert seen.next_attempt_at(began=began) == due


@pytest.mark.parametrize(
    ("durations", "says"),
    [
        pytest.param((11, 10.0, 2.0), r"lease_duration_seconds \(11\) must be at least .* \(10 \+ 2\)", id="lease"),
        pytest.param((20, 10.0, 5.1), r"renew_deadline_seconds \(10\) must be at least twice .* \(5\.1\)", id="retry"),
    ],
)
def test_durations_that_do_not_fit_together_are_refused(durations, says) -> None:
    lease, deadline, retry = durations
    with pytest.raises(ValueError, match=says):
        Timing(lease_duration_seconds=lease, renew_deadline_seconds=deadline, retry_period_seconds=retry)
