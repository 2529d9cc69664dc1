"""What an administrator can set: one frozen model from LONGTAIL_* and flags, checked once at the start.

A flag wins over its variable, a variable over the default. The variable of ``interval_seconds`` is
``LONGTAIL_INTERVAL_SECONDS``, its flag ``--interval-seconds``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from longtail.cluster.election import Timing
from longtail.control.budgets import read_budgets
from longtail.control.prices import Prices, read_prices
from longtail.control.sources import DEFAULT_SOURCE, read_sources
from longtail.errors import SettingsError
from longtail.policy.fleet import GpuBudget
from longtail.signals.sources import MetricsSource

PREFIX: Final = "LONGTAIL_"
_FOREIGN: Final = re.compile(r"cache|data|e2e_.*|(.+_)?service_(host|port)(_.+)?|(.+_)?port(_\d+_.+)?")
"""Variables of our prefix that are not settings: the development tools' own, and those that the kubelet gives
to every pod beside a Service called "longtail" or "longtail-…" (LONGTAIL_SERVICE_HOST, LONGTAIL_PORT_8080_TCP)."""


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Settings(BaseModel):
    """Settings of the operator."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    interval_seconds: Annotated[float, Field(ge=0.1, le=300)] = 15.0
    """Seconds between two looks at the fleet."""
    namespaces: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Namespaces to serve, separated by commas; empty serves all of them."""
    kubeconfig: Path | None = None
    """Path of a kubeconfig; without it the pod's service account, else kubectl's default."""
    context: str | None = None
    """Context of the kubeconfig; its current one by default."""
    metrics_sources_file: Path | None = None
    """YAML file of metrics sources: urls, credentials, labels."""
    prometheus_url: str | None = None
    """URL of the metrics source "default", where no file is needed."""
    scrape_interval_seconds: Annotated[float, Field(gt=0)] = 15.0
    """How often prometheus_url scrapes the engines."""
    prices_file: Path | None = None
    """YAML file of prices of a GPU-hour by class; without it no money is told."""
    gpu_budgets_file: Path | None = None
    """YAML file of GPU budgets: how many GPUs of a class all services, or those of a namespace, may take together."""
    pod_label_selector: str = ""
    """Watch only pods with these labels, to save memory in clusters with many other pods."""
    health_host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus ask from outside the pod
    """Address on which /livez, /readyz and /metrics are served."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port of these; 0 takes a free one and logs it."""
    instance: str = "longtail"
    """Who we are in Events and in the Lease: the pod's name."""
    leader_elect: bool = True
    """Write only while holding a Lease, so that several may run; the others stand by."""
    lease_namespace: str | None = None
    """Namespace of the Lease; that of the pod by default, longtail-system outside of a cluster."""
    lease_name: Annotated[str, Field(min_length=1)] = "longtail"
    """Name of the Lease."""
    lease_duration_seconds: Annotated[int, Field(ge=1, le=3600)] = 15
    """For how long a silent leader is left alone."""
    renew_deadline_seconds: Annotated[float, Field(gt=0)] = 10.0
    """For how long a leader writes without having renewed the Lease."""
    retry_period_seconds: Annotated[float, Field(ge=0.1)] = 2.0
    """Seconds between two attempts to get or to renew the Lease."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log line that is written."""
    backfill_seconds: Annotated[float, Field(ge=0, le=604_800)] = 21_600.0
    """How far back to replay the metrics after a start, as far as a minute's work goes; 0 starts without a past."""
    sweep_interval_seconds: Annotated[float, Field(ge=1)] = 600.0
    """Seconds between two searches for objects that vanished while no watch was looking."""
    status_interval_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Least seconds between two writes of a status whose figures alone have changed."""
    concurrent_writes: Annotated[int, Field(ge=1, le=200)] = 20
    """Requests to the API server in flight at once while a tick writes."""

    @model_validator(mode="after")
    def _names_the_default_source_once(self) -> Self:
        if self.prometheus_url is not None and self.metrics_sources_file is not None:
            raise ValueError("prometheus_url and metrics_sources_file: give one of them")
        return self

    @model_validator(mode="after")
    def _has_an_election_that_can_be_won(self) -> Self:
        self.election_timing()
        return self

    def election_timing(self) -> Timing:
        """Return the election's three durations, which were checked against each other."""
        return Timing(
            lease_duration_seconds=self.lease_duration_seconds,
            renew_deadline_seconds=self.renew_deadline_seconds,
            retry_period_seconds=self.retry_period_seconds,
        )

    def metrics_sources(self) -> tuple[MetricsSource, ...]:
        """Return the configured sources; none is allowed, and every service then says so.

        Raises:
            SettingsError: the file or the URL cannot be used.
        """
        if self.metrics_sources_file is not None:
            return read_sources(self.metrics_sources_file)
        if self.prometheus_url is not None:
            source = MetricsSource(
                name=DEFAULT_SOURCE,
                url=self.prometheus_url,
                scrape_interval_seconds=self.scrape_interval_seconds,
            )
            return (source,)
        return ()

    def prices(self) -> Prices | None:
        """Return the configured prices; None where there are none.

        Raises:
            SettingsError: the file cannot be used.
        """
        return None if self.prices_file is None else read_prices(self.prices_file)

    def gpu_budgets(self) -> tuple[GpuBudget, ...]:
        """Return the configured budgets; without any, services take what they need.

        Raises:
            SettingsError: the file cannot be used.
        """
        return () if self.gpu_budgets_file is None else read_budgets(self.gpu_budgets_file)


def load_settings(*, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Merge and check.

    Args:
        environment: variables; those that begin with LONGTAIL_ are ours.
        flags: values by field name; None means that the flag was not given.

    Raises:
        SettingsError: a variable is unknown or a value invalid; the message names key and value.
    """
    variables = {
        key.removeprefix(PREFIX).lower(): value for key, value in environment.items() if key.startswith(PREFIX)
    }
    unknown = sorted(variables.keys() - Settings.model_fields.keys())
    misspelt = [name for name in unknown if not _FOREIGN.fullmatch(name)]
    if misspelt:
        raise SettingsError(f"{PREFIX}{misspelt[0].upper()}: there is no such setting")
    for name in unknown:
        del variables[name]
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        return Settings.model_validate({**variables, **given})
    except ValidationError as invalid:
        raise SettingsError("; ".join(_sentences(invalid, given=given))) from invalid


def _sentences(invalid: ValidationError, *, given: Mapping[str, Any]) -> list[str]:
    sentences = []
    for fault in invalid.errors(include_url=False, include_context=False):
        key = str(fault["loc"][0]) if fault["loc"] else ""
        spelled = f"--{key.replace('_', '-')}" if key in given else f"{PREFIX}{key.upper()}"
        message = fault["msg"].removeprefix("Value error, ")
        sentences.append(f"{spelled}: {message}, got {fault['input']!r}" if key else message)
    return sentences
