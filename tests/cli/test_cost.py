"""What is asked for on the command line of `longtail cost`, and what it makes of accounts."""

import io
from decimal import Decimal

import pytest
from rich.console import Console

from longtail.cli.cost import resources_of, windows_of
from longtail.cli.cost_report import CostReport, report_of, table
from longtail.control.prices import Prices
from longtail.errors import SettingsError, SpecError
from longtail.policy.accounting import Account
from longtail.policy.fleet import GpuShape
from longtail_fakes.manifests import serving

NOW = 1_795_507_200.0  # 2026-11-24T08:00:00Z
PRICES = Prices("USD", {"H100": Decimal("3.00"), "L40S": Decimal("1.00")})
R1 = Account(
    serving=7200.0,
    headroom=3600.0,
    starting=1800.0,
    draining=900.0,
    unknown=900.0,
    answered_requests=100.0,
    answered_over=14_400.0,
    output_tokens=1e6,
    output_over=14_400.0,
    reasoning_tokens=4e5,
    told_tokens=5e5,
)
QWEN = Account(serving=3600.0, answered_requests=50.0, answered_over=3600.0, output_tokens=1e5, output_over=3600.0)


class Clock:
    def unix_seconds(self) -> float:
        return NOW + 100.0

    def monotonic_seconds(self) -> float:
        return 0.0


def report(*readings, prices: Prices | None = PRICES, **over) -> CostReport:
    return report_of("inference", readings, prices, since=NOW - 3600, until=NOW, **over)


def printed(given: CostReport) -> str:
    out = io.StringIO()
    Console(file=out, width=200, highlight=False).print(table(given))
    return out.getvalue()


def test_money_is_hours_by_price_and_per_answer_all_of_it() -> None:
    (row,) = report(("r1", {"H100": R1}, 1.0)).services
    assert row.gpu_hours == 4
    assert row.amount == 12
    assert row.amount_by_phase == {
        "serving": 6,
        "headroom": 3,
        "starting": 1.5,
        "draining": 0.75,
        "unavailable": 0,
        "unknown": 0.75,
    }
    assert row.amount_per_thousand_answers == pytest.approx(120)
    assert row.gpu_hours_per_thousand_answers == pytest.approx(40)
    assert row.amount_per_million_output_tokens == pytest.approx(12)
    # Four fifths of what is told are reasoning, and so they are taken to be of all.
    assert row.amount_per_million_reasoning_tokens == pytest.approx(15)


def test_each_class_of_gpus_has_its_own_price() -> None:
    given = report(("qwen", {"L40S": QWEN}, 1.0), ("r1", {"H100": R1}, 0.5))
    assert given.total.gpu_hours_by_class == {"H100": 4, "L40S": 1}
    assert given.total.amount == 13
    assert given.total.operator_percent == 75
    assert sum((given.total.amount_by_phase or {}).values()) == pytest.approx(13)


def test_what_a_gateway_tells_of_one_service_says_nothing_of_another() -> None:
    given = report(("qwen", {"L40S": QWEN}, 1.0), ("r1", {"H100": R1}, 1.0))
    assert given.total.amount_per_million_reasoning_tokens is None
    assert "Reasoning tokens are told by a gateway alone" in printed(given)
    alone = report(("r1", {"H100": R1}, 1.0))
    assert alone.total.amount_per_million_reasoning_tokens == pytest.approx(15)
    assert "Reasoning tokens" not in printed(alone)


def test_a_class_without_a_price_makes_the_money_unknown_and_is_named() -> None:
    given = report(("qwen", {"T4": QWEN}, 1.0), ("r1", {"H100": R1}, 1.0))
    assert given.services[0].amount is None
    assert given.total.amount is None
    assert given.total.gpu_hours == 5
    assert given.unpriced == ["T4"]
    assert "There is no price of T4" in printed(given)


def test_without_prices_answers_are_told_in_gpu_hours() -> None:
    said = printed(report(("r1", {"H100": R1}, 1.0), prices=None))
    assert "1,000 answers, GPU-hours" in said
    assert "cost" not in said.replace("cold", "")
    assert "There is no price of H100" in said


def test_what_the_figures_rest_on_is_said() -> None:
    said = printed(report(("r1", {"H100": R1}, 0.25), ("r2", {}, 0.0), not_counted=["r2"]))
    assert "r1: the operator's own counters tell 25 % of the time or more" in said
    assert "r2 is not counted" in said
    uncounted = report(("r2", {}, 0.0), not_counted=["r2"]).services[0]
    assert uncounted.amount is None
    whole = printed(report(("r1", {"H100": R1}, 1.0)))
    assert "engines' series" not in whole


def test_nothing_at_all_is_no_division_by_it() -> None:
    given = report(("r1", {}, 0.0))
    assert (given.total.gpu_hours, given.total.amount, given.total.amount_per_thousand_answers) == (0, 0, None)
    assert "0.0" in printed(given)


@pytest.mark.parametrize(
    ("since", "until", "seconds", "ends"),
    [
        pytest.param("1h", None, 60, ("07:01:00", "08:01:00"), id="an-hour-by-minutes"),
        pytest.param("24h", None, 300, ("08:00:00", "08:00:00"), id="a-day-by-five-minutes"),
        pytest.param("7d", None, 900, ("08:00:00", "08:00:00"), id="a-week-by-quarters"),
        pytest.param("30d", "7d", 3600, ("08:00:00", "08:00:00"), id="longer-by-hours"),
        pytest.param("2026-11-23T10:00:00Z", "2026-11-23T12:00:00+01:00", 60, ("10:00:00", "11:00:00"), id="times"),
        pytest.param("2026-11-23T10:00:00", "2026-11-23T11:00:00", 60, ("10:00:00", "11:00:00"), id="utc-if-not-said"),
        pytest.param("1h", "2027-01-01T00:00:00Z", 60, ("07:01:00", "08:01:00"), id="not-beyond-now"),
    ],
)
def test_a_time_is_cut_into_whole_windows(since: str, until: str | None, seconds: int, ends: tuple[str, str]) -> None:
    windows = windows_of(since, until, clock=Clock())
    assert windows.seconds == seconds
    assert windows.start_seconds % windows.seconds == 0
    assert [clock(windows.start_seconds), clock(windows.end_seconds)] == list(ends)
    assert windows.ends[0] == windows.start_seconds + windows.seconds
    assert windows.ends[-1] == windows.end_seconds


def clock(at: float) -> str:
    second = int(at) % 86_400
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


@pytest.mark.parametrize(
    ("since", "until"),
    [("7 days", None), ("2026-13-01", None), ("1h", "2h"), ("30s", None), ("1h", "soon")],
)
def test_a_time_that_cannot_be_is_refused(since: str, until: str | None) -> None:
    with pytest.raises(SettingsError, match=r"--(since|until): "):
        windows_of(since, until, clock=Clock())


def workload(gpus: int) -> dict:
    container = {"resources": {"limits": {"nvidia.com/gpu": gpus}}}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def test_gpus_are_those_of_the_target_unless_somebody_says_otherwise() -> None:
    bodies = [serving("r2", mode="Off"), serving("r1", gpus={"class": "h200"})]
    found = resources_of(bodies, {("Deployment", "r1"): workload(8)}, [])
    assert [(each.name, each.gpus) for each in found] == [("r1", GpuShape("H200", 8)), ("r2", None)]
    stated = resources_of(bodies, {}, ["spec.gpus.perReplica=4"])
    assert [each.gpus for each in stated] == [GpuShape("H200", 4), GpuShape("UNKNOWN", 4)]
    with pytest.raises(SpecError, match=r"spec\.gpus\.perReplicas"):
        resources_of(bodies, {}, ["spec.gpus.perReplicas=4"])
