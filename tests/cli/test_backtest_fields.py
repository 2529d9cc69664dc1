"""Fields on the command line: read as YAML, checked by the resource's own model, named when they are wrong."""

import pytest

from longtail.api.resource import read_spec
from longtail.cli.backtest import candidates_of, peers_of, step_of
from longtail.cli.backtest_fields import apply_fields, parse_field
from longtail.cli.recording import duration
from longtail.errors import SettingsError, SpecError
from longtail.workbench.backtest import Learned

BODY = {
    "apiVersion": "longtail.dev/v1alpha1",
    "kind": "ReasoningServing",
    "metadata": {"namespace": "inference", "name": "r1", "uid": ""},
    "spec": {"scaleTargetRef": {"name": "r1"}, "maxReplicas": 12, "mode": "Off"},
}
LEARNED = Learned(24.0, "Spec", 120.0, 150.0, 2000.0)


def test_a_field_is_changed_and_nothing_else() -> None:
    changed = apply_fields(BODY, [parse_field("spec.behavior.scaleDown.stabilizationWindowSeconds=60")])
    assert read_spec(changed).behavior.scale_down.stabilization_window_seconds == 60
    assert "behavior" not in BODY["spec"]


@pytest.mark.parametrize(
    ("field", "says"),
    [
        pytest.param("spec.objective.attainmentPercent=120", ["spec.objective.attainmentPercent", "120"], id="value"),
        pytest.param("spec.objective.atainment=95", ["spec.objective.atainment", "attainmentPercent"], id="field"),
        pytest.param("spec.minReplicas.x=1", ["spec.minReplicas.x", "'x'"], id="no-block"),
        pytest.param("objective.attainmentPercent=95", ["want spec.FIELD=VALUE"], id="no-spec"),
        pytest.param("spec.minReplicas", ["want spec.FIELD=VALUE"], id="no-value"),
        pytest.param("spec.minReplicas=[", ["not YAML"], id="no-yaml"),
    ],
)
def test_what_is_wrong_is_named(field: str, says: list[str]) -> None:
    with pytest.raises(SpecError) as wrong:
        apply_fields(BODY, [parse_field(field)])
    assert all(word in str(wrong.value) for word in says)


def test_the_grid_holds_valid_resources_that_differ_from_the_base() -> None:
    candidates, past = candidates_of(BODY, [parse_field("spec.maxReplicas=1")], grid=True)
    assert candidates[0].name == "longtail, spec.maxReplicas=1"
    assert candidates[1].name == "longtail as it is"
    assert len({candidate.name for candidate in candidates}) == len(candidates) > 5
    # minReplicas 2 would exceed maxReplicas 1.
    assert all(c.service.limits.min_replicas <= c.service.limits.max_replicas for c in candidates)
    assert (past.kind, past.name, past.signals.key.namespace) == ("Deployment", "r1", "inference")


def test_peers_are_found_by_name_and_by_the_beginning_of_it() -> None:
    service = candidates_of(BODY, [], grid=False)[0][0].service
    assert "hpa-running" in [peer.name for peer in peers_of("hpa-running", service, LEARNED)]
    assert len(peers_of("hpa,keda", service, LEARNED)) > 4
    assert peers_of("", service, LEARNED) == []
    with pytest.raises(SettingsError, match="'hpb' is none of"):
        peers_of("hpb", service, LEARNED)


@pytest.mark.parametrize("text", ["", "7", "7 days", "-1d", "0h", "1.5h"])
def test_a_span_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--since"):
        duration(text)


@pytest.mark.parametrize("text", ["0", "61", "x", "1.5"])
def test_a_step_that_would_be_a_gap_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--step"):
        step_of(text, 3600)


def test_a_day_is_replayed_in_the_steps_of_the_operator() -> None:
    assert [step_of(None, days * 86_400) for days in (1, 3, 7)] == [15, 30, 60]
