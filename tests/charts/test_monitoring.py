"""Alerts, recording rules and dashboards speak of series that exist, and each alert has its runbook."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from longtail.cluster.store import Store
from longtail.control.budget_metrics import BudgetCollector
from longtail.control.clock import SystemClock
from longtail.control.metrics import FleetCollector, OperatorMetrics
from longtail.policy.fleet import Fleet
from longtail.signals import sglang, vllm
from longtail.signals.sources import LabelNames

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts/longtail/files"
ALERTS = [rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
RECORDS = [
    rule for group in yaml.safe_load((FILES / "recording.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARDS = [pytest.param(json.loads(path.read_text()), id=path.stem) for path in (FILES / "dashboards").iterdir()]

_OURS = re.compile(r"\blongtail_[a-z0-9_]+")
_ENGINES = re.compile(r"\b(?:vllm|sglang):[a-z0-9_]+")
_FIGURES_OF_A_HISTOGRAM = ("_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def published() -> set[str]:
    """Every series that the operator writes."""
    metrics = OperatorMetrics(clock=SystemClock())
    metrics.leads(lambda: True)
    metrics.registry.register(FleetCollector(outcomes=list, store=Store()))
    metrics.registry.register(BudgetCollector(fleet=lambda: Fleet(services=())))
    names: set[str] = set()
    for family in metrics.registry.collect():
        suffixes = {"counter": ("_total",), "histogram": _FIGURES_OF_A_HISTOGRAM}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def expressions(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (str(variable.get("definition", "")) for variable in board["templating"]["list"])


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in ALERTS])
class TestAlerts:
    def test_it_speaks_of_series_that_exist(self, rule: dict[str, Any], published: set[str]) -> None:
        named = set(_OURS.findall(rule["expr"]))
        assert named
        assert named <= published

    def test_it_has_a_runbook(self, rule: dict[str, Any]) -> None:
        runbooks = (ROOT / "docs/runbooks.md").read_text(encoding="utf-8")
        assert f"\n## {rule['alert']}\n" in runbooks

    def test_it_says_what_is_wrong_and_how_bad_it_is(self, rule: dict[str, Any]) -> None:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_every_alert_can_be_left_out_by_its_name_and_no_other() -> None:
    schema = json.loads((ROOT / "charts/longtail/values.schema.json").read_text())
    disabled = schema["properties"]["prometheusRule"]["properties"]["alerts"]["properties"]["disabled"]
    assert set(disabled["items"]["enum"]) == {rule["alert"] for rule in ALERTS}


def test_every_runbook_is_that_of_an_alert() -> None:
    runbooks = (ROOT / "docs/runbooks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+)$", runbooks, re.MULTILINE)) == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("board", DASHBOARDS)
class TestDashboards:
    def test_it_shows_series_that_exist(self, board: dict[str, Any], published: set[str]) -> None:
        named = {name for expression in expressions(board) for name in _OURS.findall(expression)}
        assert named
        assert named <= published

    def test_every_panel_has_a_place_and_a_number_of_its_own(self, board: dict[str, Any]) -> None:
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        assert len(set(places)) == len(panels)
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def shown_by(uid: str) -> set[str]:
    (board,) = (board for board in (param.values[0] for param in DASHBOARDS) if board["uid"] == uid)
    return {name for expression in expressions(board) for name in _OURS.findall(expression)}


def test_the_dashboards_show_what_a_pool_is_asked_about() -> None:
    shown = shown_by("longtail-service")
    assert {
        "longtail_demand_slots_upper",
        "longtail_draining_replicas",
        "longtail_pending_replicas",
        "longtail_owed_tokens",
        "longtail_kv_used_tokens",
        "longtail_output_length_p99_tokens",
        "longtail_forecast_coverage_ratio",
        "longtail_effort_level",
        "longtail_class_work_ratio",
        "longtail_timeout_cascade",
    } <= shown


def test_the_fleet_shows_what_is_left_of_a_quota() -> None:
    assert {"longtail_gpu_budget_gpus", "longtail_gpu_budget_held_gpus"} <= shown_by("longtail-fleet")


@pytest.mark.parametrize("engine", [pytest.param(vllm, id="vllm"), pytest.param(sglang, id="sglang")])
def test_recording_rules_read_what_the_operator_reads(engine: Any) -> None:
    asked = {name for part in engine.parts(LabelNames()) for name in _ENGINES.findall(part.expression)}
    rules = [rule for rule in RECORDS if rule["labels"]["engine"] == engine.ENGINE]
    named = {name for rule in rules for name in _ENGINES.findall(rule["expr"])}
    assert named
    assert named <= asked


def test_both_engines_get_the_same_vocabulary() -> None:
    by_engine = {
        engine: {rule["record"] for rule in RECORDS if rule["labels"]["engine"] == engine}
        for engine in ("vllm", "sglang")
    }
    assert by_engine["vllm"] == by_engine["sglang"]
