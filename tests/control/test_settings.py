"""Settings: a flag wins over a variable, a variable over the default, and every error names key and value."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from longtail.cli.run import run
from longtail.cluster.election import Timing
from longtail.control.settings import Settings, load_settings
from longtail.control.sources import read_sources
from longtail.errors import SettingsError
from longtail.policy.fleet import GpuBudget
from longtail.signals.sources import BasicFile, BearerFile, ClientCertificate, LabelNames


def test_defaults_are_enough() -> None:
    assert load_settings(environment={}, flags={}) == Settings()
    assert Settings().metrics_sources() == ()


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default() -> None:
    settings = load_settings(
        environment={"LONGTAIL_INTERVAL_SECONDS": "5", "LONGTAIL_NAMESPACES": "a, b,", "PATH": "/bin"},
        flags={"interval_seconds": "2", "health_port": None},
    )
    assert settings.interval_seconds == 2
    assert settings.namespaces == ("a", "b")
    assert settings.health_port == 8080


def test_there_is_an_election_unless_somebody_says_otherwise() -> None:
    assert Settings().leader_elect
    assert Settings().election_timing() == Timing()
    assert not load_settings(environment={"LONGTAIL_LEADER_ELECT": "false"}, flags={}).leader_elect
    assert load_settings(environment={"LONGTAIL_LEADER_ELECT": "false"}, flags={"leader_elect": True}).leader_elect


def test_an_election_can_be_switched_off_by_a_flag() -> None:
    answer = CliRunner().invoke(run, ["--no-leader-elect", "--lease-duration-seconds=1"])
    assert isinstance(answer.exception, SettingsError)
    assert "--no-leader-elect" in CliRunner().invoke(run, ["--help"]).output


@pytest.mark.parametrize(
    ("environment", "flags", "says"),
    [
        pytest.param({"LONGTAIL_INTERVAL_SECONDS": "soon"}, {}, r"LONGTAIL_INTERVAL_SECONDS: .*'soon'", id="text"),
        pytest.param({"LONGTAIL_INTERVAL_SECONDS": "0"}, {}, r"LONGTAIL_INTERVAL_SECONDS: .*'0'", id="too-small"),
        pytest.param({"LONGTAIL_INTERVAL": "5"}, {}, "LONGTAIL_INTERVAL: there is no such setting", id="misspelt"),
        pytest.param({}, {"health_port": "70000"}, r"--health-port: .*'70000'", id="flag"),
        pytest.param(
            {"LONGTAIL_LEASE_DURATION_SECONDS": "10"},
            {},
            r"lease_duration_seconds \(10\) must be at least .* \(10 \+ 2\)",
            id="a-lease-shorter-than-its-deadline",
        ),
        pytest.param(
            {},
            {"retry_period_seconds": "5.5", "lease_duration_seconds": "20"},
            "must be at least twice retry_period_seconds",
            id="a-slow-retry",
        ),
        pytest.param({"LONGTAIL_LEADER_ELECT": "maybe"}, {}, "LONGTAIL_LEADER_ELECT: .*'maybe'", id="boolean"),
        pytest.param({"LONGTAIL_LOG_LEVEL": "LOUD"}, {}, r"LONGTAIL_LOG_LEVEL: .*'LOUD'", id="choice"),
        pytest.param(
            {"LONGTAIL_PROMETHEUS_URL": "http://p"},
            {"metrics_sources_file": "f.yaml"},
            "prometheus_url and metrics_sources_file: give one of them",
            id="two-ways",
        ),
    ],
)
def test_a_bad_setting_is_refused_with_key_and_value(environment, flags, says) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(environment=environment, flags=flags)


def test_one_url_is_the_source_default() -> None:
    (source,) = Settings(prometheus_url="http://prometheus:9090", scrape_interval_seconds=5).metrics_sources()
    assert (source.name, source.url, source.freshness_limit_seconds) == (
        "default",
        "http://prometheus:9090",
        10,
    )


def test_a_url_that_cannot_be_used_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="ftp://prometheus"):
        Settings(prometheus_url="ftp://prometheus").metrics_sources()


def write(path: Path, sources: object) -> Path:
    path.write_text(json.dumps({"sources": sources}))
    return path


def test_a_file_names_sources_with_every_way_to_authenticate(tmp_path: Path) -> None:
    file = write(
        tmp_path / "sources.yaml",
        {
            "default": {
                "url": "https://p:9090",
                "bearerTokenFile": "/token",
                "caFile": "/ca",
                "scrapeIntervalSeconds": 5,
            },
            "tenant-a": {
                "url": "https://mimir/prometheus",
                "basic": {"username": "u", "passwordFile": "/password"},
                "mTLS": {"certFile": "/crt", "keyFile": "/key"},
                "headers": {"X-Scope-OrgID": "a"},
                "labels": {"pod": "kubernetes_pod_name"},
                "timeoutSeconds": 3,
            },
            "open": {"url": "http://p"},
        },
    )
    default, tenant, plain = Settings(metrics_sources_file=file).metrics_sources()
    assert (default.authentication, default.ca_file) == (BearerFile(Path("/token")), Path("/ca"))
    assert default.scrape_interval_seconds == 5
    assert tenant.authentication == BasicFile("u", Path("/password"))
    assert tenant.client_certificate == ClientCertificate(Path("/crt"), Path("/key"))
    assert (tenant.headers, tenant.labels) == ({"X-Scope-OrgID": "a"}, LabelNames(pod="kubernetes_pod_name"))
    assert tenant.timeout_seconds == 3
    assert (plain.authentication, plain.client_certificate) == (None, None)


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        pytest.param({"a": {}}, "sources.a.url: Field required", id="no-url"),
        pytest.param({"a": {"url": "http://p", "tokn": "x"}}, r"sources\.a\.tokn: Extra .*'x'", id="misspelt-key"),
        pytest.param({"A_B": {"url": "http://p"}}, "A_B", id="a-name-no-resource-could-say"),
        pytest.param({"a": {"url": "p:9090"}}, "'p:9090' is not an http", id="no-scheme"),
        pytest.param({"a": {"url": "http://u:secret@p"}}, "credentials belong in a file", id="credentials-in-the-url"),
        pytest.param({"a": {"url": "http://p", "scrapeIntervalSeconds": 0}}, "scrapeIntervalSeconds", id="zero"),
        pytest.param(
            {
                "a": {
                    "url": "http://p",
                    "bearerTokenFile": "/t",
                    "basic": {"username": "u", "passwordFile": "/p"},
                }
            },
            "bearerTokenFile and basic: give one of them",
            id="two-ways",
        ),
    ],
)
def test_a_bad_source_is_refused_with_file_key_and_value(tmp_path: Path, sources, says) -> None:
    file = write(tmp_path / "sources.yaml", sources)
    with pytest.raises(SettingsError, match=says):
        read_sources(file)


@pytest.mark.parametrize("content", ["sources: [", "just text", "sources: [1, 2]"], ids=["yaml", "text", "list"])
def test_a_file_that_is_no_sources_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"sources\.yaml"):
        read_sources(file)


def test_a_file_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"/nowhere\.yaml"):
        read_sources(Path("/nowhere.yaml"))


def test_variables_that_kubernetes_makes_for_a_service_called_longtail_are_no_settings() -> None:
    links = {
        "LONGTAIL_SERVICE_HOST": "10.96.0.7",
        "LONGTAIL_SERVICE_PORT_HTTP": "8080",
        "LONGTAIL_PORT": "tcp://10.96.0.7:8080",
        "LONGTAIL_PORT_8080_TCP_ADDR": "10.96.0.7",
        "LONGTAIL_METRICS_SERVICE_HOST": "10.96.0.8",
        "LONGTAIL_CACHE": "/var/cache/longtail",
    }
    assert load_settings(environment=links, flags={}) == Settings()


def test_a_setting_that_looks_like_a_service_link_is_a_setting() -> None:
    assert load_settings(environment={"LONGTAIL_HEALTH_PORT": "9090"}, flags={}).health_port == 9090


def test_a_file_names_gpu_budgets_of_all_and_of_namespaces(tmp_path: Path) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text("budgets: [{class: h100, gpus: 64}, {class: H100, namespace: team-a, gpus: 0}]")
    assert Settings(gpu_budgets_file=file).gpu_budgets() == (
        GpuBudget("H100", 64),
        GpuBudget("H100", 0, namespace="team-a"),
    )
    assert Settings().gpu_budgets() == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param("budgets: [{gpus: 8}]", r"budgets\.0\.class: Field required", id="no-class"),
        pytest.param("budgets: [{class: H100}]", r"budgets\.0\.gpus: Field required", id="no-number"),
        pytest.param("budgets: [{class: H100, gpus: -1}]", r"budgets\.0\.gpus: .*got -1", id="negative"),
        pytest.param("budgets: [{class: H100, gpus: 1.5}]", r"budgets\.0\.gpus: .*got 1\.5", id="half-a-gpu"),
        pytest.param("budgets: [{class: H100, gpus: true}]", r"budgets\.0\.gpus: .*got True", id="yes"),
        pytest.param("budgets: [{class: NVIDIA H100, gpus: 1}]", "got 'NVIDIA H100'", id="blank-in-a-class"),
        pytest.param("budgets: [{class: H100, gpus: 1, namespaces: a}]", r"namespaces: Extra .*'a'", id="misspelt"),
        pytest.param("budgets: [{class: H100, gpus: 1, namespace: Team}]", "got 'Team'", id="no-such-namespace"),
        pytest.param(
            "budgets: [{class: H100, gpus: 1, namespace: a}, {class: h100, gpus: 2, namespace: a}]",
            "2 of them for class H100 in namespace a, give one",
            id="twice",
        ),
        pytest.param("budgets: [", "budgets.yaml", id="yaml"),
        pytest.param("H100: 8", "budgets.yaml: budgets: Field required", id="no-list"),
    ],
)
def test_a_bad_gpu_budget_is_refused_with_file_key_and_value(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=says) as refused:
        Settings(gpu_budgets_file=file).gpu_budgets()
    assert str(file) in str(refused.value)
