"""A whole comparison, small: a trace of our own, two worker processes, real policies."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from longtail.errors import SettingsError, TraceError
from longtail.workbench.evaluation.case import CaseName, Pool, open_case
from longtail.workbench.evaluation.frontier import Plan, run_frontier
from longtail.workbench.evaluation.journal import Journal
from longtail.workbench.evaluation.page import page
from longtail.workbench.evaluation.pictures import draw_pictures
from longtail.workbench.evaluation.rows import DEFAULT, HINDSIGHT
from longtail.workbench.evaluation.summary import as_json, markdown, summarise
from longtail.workbench.evaluation.trial import bounds_of, fly

HOUR = 3600.0
POLICIES = ("longtail", "keda-running", "oracle-rate", "oracle-arrivals")


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    rng = np.random.default_rng(7)
    arrivals = np.sort(rng.uniform(0, HOUR, 1200))
    path = tmp_path_factory.mktemp("traces") / "small.npz"
    tokens = rng.integers(200, 2000, 1200)
    np.savez(path, arrival_seconds=arrivals, input_tokens=tokens, output_tokens=tokens)
    return CaseName(str(path), Pool(slots_per_replica=6), None, warm_up_seconds=900.0, measured_seconds=HOUR)


@pytest.fixture(scope="module")
def compared(name, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "journal.jsonl"
    plan = Plan([name], POLICIES, seeds=2, attainments_percent=(95.0, 99.0), most_runs=4, workers=2)
    told = []
    results = run_frontier(plan, journal=Journal(path), progress=lambda doing, share: told.append((doing, share)))
    return plan, path, results, told


def test_longtail_stands_there_at_its_defaults_on_every_seed(compared):
    _, _, results, _ = compared
    default = [row for row in results.rows if row.tuned == DEFAULT]
    assert [(row.policy, row.seed, row.attainment_target_percent) for row in default] == [
        ("longtail", 0, 99.0),
        ("longtail", 1, 99.0),
    ]
    assert all(row.knob is None and row.killed_requests == 0 == row.wasted_tokens for row in default)


def test_every_policy_is_read_off_at_equal_attainment(compared):
    _, _, results, _ = compared
    hindsight = [row for row in results.rows if row.tuned == HINDSIGHT and row.seed == 0]
    assert {row.policy for row in hindsight} == set(POLICIES)
    for row in hindsight:
        assert row.attainment_percent >= row.attainment_target_percent
        assert row.cost_over_bound == pytest.approx(row.gpu_hours / row.bound_gpu_hours)


def test_hours_are_whole_and_nobody_beats_the_bound_that_may_wait_at_full_attainment(compared):
    _, _, results, _ = compared
    for row in results.runs:
        parts = row.serving_gpu_hours + row.starting_gpu_hours + row.draining_gpu_hours
        assert row.gpu_hours == pytest.approx(parts)
        if row.attainment_percent == 100.0:
            assert row.gpu_hours >= results.bounds[row.trace, row.seed].waiting_gpu_hours * 0.99
    for bound in results.bounds.values():
        assert bound.waiting_gpu_hours <= bound.at_once_gpu_hours


def test_a_second_comparison_makes_no_run_again(compared):
    plan, path, results, _ = compared
    before = path.read_text()
    again = run_frontier(plan, journal=Journal(path), progress=lambda *_: None)
    assert path.read_text() == before
    assert sorted(again.runs, key=str) == sorted(results.runs, key=str)


def test_progress_never_goes_back_and_names_what_is_going_on(compared):
    _, _, _, told = compared
    assert any("keda-running" in doing for doing, _ in told)
    assert all(0.0 <= share <= 1.0 for _, share in told)


def test_the_report_holds_everything_and_loads_nothing(compared):
    plan, _, results, _ = compared
    summary = summarise(results, plan)
    text = page(results, summary, {"attainment": b"\x89PNG"})

    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.sources = [], []

        def handle_starttag(self, tag, attrs):
            self.sources += [value for key, value in attrs if key in {"src", "href"}]
            if tag not in {"meta", "img"}:
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert all(source.startswith("data:image/png;base64,") for source in tags.sources)
    assert len(tags.sources) == 1
    for policy in POLICIES:
        assert policy in text


def test_the_json_and_the_document_say_the_same(compared):
    plan, _, results, _ = compared
    summary = summarise(results, plan)
    plain = json.loads(json.dumps(as_json(results, summary)))
    assert len(plain["rows"]) == len(results.rows)
    assert {"trace", "policy", "seed", "knob", "attainment_percent", "gpu_hours", "bound_gpu_hours", "cost_over_bound",
            "wasted_tokens", "killed_requests", "scaling_actions", "attainment_target_percent", "tuned"} <= set(plain["rows"][0])  # fmt: skip
    document = markdown(summary)
    for title in plain["summary"]:
        assert f"### {title}" in document


def test_pictures_are_drawn(compared):
    pytest.importorskip("matplotlib")
    drawn = draw_pictures(compared[2])
    assert set(drawn) == {"attainment", "timeline"}
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())


def test_peers_that_drain_gracefully_kill_nobody(name):
    run = fly(name, 0, "keda-running", 0.5)
    assert run.killed_requests == 0
    assert run.wasted_tokens == 0


def test_the_same_case_has_the_same_digest_and_another_seed_has_another(name):
    open_case.cache_clear()
    first = open_case(name, 0).digest()
    open_case.cache_clear()
    assert open_case(name, 0).digest() == first != open_case(name, 1).digest()


def test_a_pool_of_bigger_replicas_has_a_lower_bound_in_replicas(name):
    bigger = CaseName(name.trace, Pool(slots_per_replica=12), None, 900.0, HOUR)
    assert bounds_of(bigger, 0).at_once_gpu_hours < bounds_of(name, 0).at_once_gpu_hours


@pytest.mark.parametrize(
    ("case", "policies", "error", "says"),
    [
        pytest.param({}, ("nobody",), SettingsError, "policies: no 'nobody' among longtail", id="policy"),
        pytest.param({"trace": "missing.csv"}, None, TraceError, r"missing\.csv", id="file"),
        pytest.param({"warm_up_seconds": 7200.0}, None, TraceError, "nothing to measure after 7200 s", id="too short"),
        pytest.param(
            {"trace": "r1-weekend", "data": Path()}, None, TraceError, "neither a file nor one of", id="scenario"
        ),
    ],
)
def test_what_cannot_be_compared_is_said(name, case, policies, error, says):
    plan = Plan([replace(name, **case)], policies, seeds=1, workers=1)
    with pytest.raises(error, match=says):
        run_frontier(plan, journal=Journal(None), progress=lambda *_: None)
