"""The commands as people call them: what they print, and one sentence instead of a traceback when they cannot."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from rich.console import Console

from longtail.api.crd import render_crds
from longtail.cli.explain import explanation
from longtail.cli.main import cli
from longtail.control.settings import Settings
from longtail_fakes.manifests import serving


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LONGTAIL_{name.upper()}", raising=False)
    return


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment)


def test_the_help_names_every_command() -> None:
    answer = call("--help")
    assert answer.exit_code == 0
    assert all(name in answer.output for name in ("run", "crds", "explain", "bench"))


def test_a_command_that_does_not_exist_is_refused_by_name() -> None:
    answer = call("scale")
    assert answer.exit_code == 2
    assert "No such command 'scale'" in answer.output


def test_every_setting_is_a_flag_and_a_variable_with_its_explanation() -> None:
    answer = " ".join(call("run", "--help").output.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in answer
        assert f"LONGTAIL_{name.upper()}" in answer
        assert field.description


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        pytest.param(["--interval-seconds=0"], {}, "--interval-seconds: ", id="flag"),
        pytest.param([], {"LONGTAIL_HEALTH_PORT": "http"}, "LONGTAIL_HEALTH_PORT: ", id="variable"),
        pytest.param(["--kubeconfig=/nowhere"], {}, "kubeconfig: /nowhere: there is no such file", id="kubeconfig"),
    ],
)
def test_the_operator_refuses_to_start_with_one_sentence(arguments, environment, says) -> None:
    answer = call("run", *arguments, **environment)
    assert answer.exit_code == 1
    assert answer.output.startswith("Error: ") or "\nError: " in answer.output
    assert says in answer.output


def test_the_definition_is_printed_or_written(tmp_path: Path) -> None:
    printed = call("crds").output
    assert [body["kind"] for body in yaml.safe_load_all(printed)] == ["CustomResourceDefinition"]
    answer = call("crds", "--out", str(tmp_path / "crds"))
    for name, content in render_crds().items():
        assert (tmp_path / "crds" / name).read_text() == content
        assert name in answer.output


@pytest.mark.parametrize("name", ["r1", "a/b/c", "/r1", "inference/"])
def test_a_name_without_its_namespace_is_refused(name: str) -> None:
    answer = call("explain", name)
    assert answer.exit_code == 2
    assert f"{name!r} is not NAMESPACE/NAME" in answer.output


STATUS = {
    "observedGeneration": 1,
    "replicas": {"current": 2, "ready": 2, "pending": 0, "desired": 4},
    "demand": {"runningRequests": 30, "waitingRequests": 5, "owedTokens": 61_000, "attainmentPercent": 97},
    "lengths": {"meanTokens": 1500, "p50Tokens": 790, "p99Tokens": 13_000, "tailPercent": 1},
    "startup": {"p50Seconds": 170, "p90Seconds": 240},
    "capacity": {"slotsPerReplica": 8, "boundBy": "KVCache"},
    "lastScaleTime": "2026-11-24T08:00:00Z",
    "decision": {
        "reason": "ScaleUp",
        "message": "2 → 4 replicas",
        "time": "2026-11-24T08:00:00Z",
        "ladder": [{"rung": "Reactive", "replicas": 5, "because": "35 requests need 5 replicas [of 8]"}],
    },
    "conditions": [
        {
            "type": "MetricsAvailable",
            "status": "False",
            "reason": "MetricsStale",
            "message": "0 of 2 ready pods report",
            "lastTransitionTime": "2026-11-24T07:00:00Z",
        }
    ],
}


def said(body: dict) -> str:
    console = Console(width=200, highlight=False)
    with console.capture() as captured:
        console.print(explanation(body))
    return captured.get()


def test_a_change_of_lengths_is_told_with_what_it_costs() -> None:
    change = {"since": "2026-11-24T07:40:00Z", "percent": 240, "beforeTokens": 620, "replicaHoursPerDay": -360}
    text = said(serving() | {"status": STATUS | {"lengths": STATUS["lengths"] | {"change": change}}})
    assert (
        "since 2026-11-24T07:40:00Z it has 240 % of the 620 tokens before, which saves 360 replica-hours a day" in text
    )


def test_the_ladder_is_told_with_its_numbers_and_words() -> None:
    text = said(serving() | {"status": STATUS})
    for words in (
        "inference/r1",
        "scales Deployment r1 between 1 and 8 replicas",
        "mode Active: the number is written to the target",
        "go from 2 to 4 replicas: ScaleUp",
        "35 requests need 5 replicas [of 8]",
        "requests running: 30, waiting: 5; tokens still owed: 61,000, of them reasoning: unknown",
        "97 % of the requests waited no longer than promised",
        "a replica holds 8 requests (bound by KVCache)",
        "an answer has 1,500 tokens on average",
        "a replica starts in 170 s, 1 of 10 needs more than 240 s",
        "0 of 2 ready pods report",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(serving(), "No operator has looked at this resource yet.", id="no-status"),
        pytest.param(serving(maxReplicas=0), "The spec cannot be used: spec.maxReplicas", id="bad-spec"),
        pytest.param(serving(generation=2) | {"status": STATUS}, "The spec was changed since", id="edited"),
        pytest.param(
            serving() | {"status": {"observedGeneration": "one"}},
            "was not written by this version",
            id="foreign",
        ),
    ],
)
def test_what_cannot_be_explained_says_so(body: dict, says: str) -> None:
    assert says in said(body)
