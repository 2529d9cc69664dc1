"""A real Prometheus, on loopback unless pods are to reach it, whose targets can change while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import yaml

from longtail_e2e.build import Components, ensure_components
from longtail_e2e.errors import HarnessError
from longtail_e2e.ports import LOOPBACK, PortReservation, wait_until_free
from longtail_e2e.processes import Command, Outage, ProcessGroup
from longtail_e2e.remote_write import TimeSeries, write_requests

PROMETHEUS: Final = "prometheus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One exporter: the URL of its metrics and the labels that all its series get.

    A simulated pod is a path of its own on one shared server, with labels such as namespace and pod;
    `instance` is the host and port of the URL unless the labels say otherwise.
    """

    url: str
    labels: Mapping[str, str] = field(default_factory=dict)


class Prometheus:
    """One Prometheus with a scrape job `targets` fed by `set_targets`, and one per HTTP service discovery."""

    def __init__(
        self,
        *,
        components: Components,
        processes: ProcessGroup,
        ports: PortReservation,
        directory: Path,
        host: str = LOOPBACK,
        scrape_interval_seconds: float = 5.0,
        http_discovery: Sequence[str] = (),
        accepts_the_past: bool = False,
    ) -> None:
        self._components = components
        self._processes = processes
        self._host = host
        self._port = ports.take()
        self._directory = directory
        self._scrape_interval_seconds = scrape_interval_seconds
        self._http_discovery = tuple(http_discovery)
        self._accepts_the_past = accepts_the_past
        self._native_histograms = False
        self._targets = directory / "targets.json"
        self._configuration = directory / "prometheus.yaml"
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy stands between us and loopback

    @property
    def url(self) -> str:
        """The address of its HTTP API."""
        return f"http://{self._host}:{self._port}"

    def start(self) -> None:
        """Start with an empty database and return when it answers queries."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if not self._targets.exists():
            self.set_targets([])
        self._write_configuration()
        self._processes.start(
            Command(
                name=PROMETHEUS,
                arguments=[
                    *self._components.command(PROMETHEUS),
                    f"--config.file={self._configuration}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self._host}:{self._port}",
                    "--web.enable-lifecycle",
                    "--web.enable-admin-api",
                    # Scrape a new target a second after it was announced rather than five.
                    "--scrape.discovery-reload-interval=1s",
                    "--log.level=warn",
                    *(["--web.enable-remote-write-receiver"] if self._accepts_the_past else []),
                ],
                ready=lambda: self._http.get(f"{self.url}/-/ready", timeout=2.0).status_code == requests.codes.ok,
            )
        )

    def set_targets(self, targets: Iterable[Target]) -> None:
        """Replace what the job `targets` scrapes; a running Prometheus follows within a second or two."""
        groups = [target_group(target) for target in targets]
        # Prometheus watches the file's folder: a rename shows it the old content or the new, never half of
        # it.
        partial = self._targets.with_suffix(".partial")
        partial.write_text(json.dumps(groups))
        partial.replace(self._targets)

    def set_http_discovery(self, *urls: str) -> None:
        """Replace the addresses that are asked for targets (the http_sd format), and reload."""
        self._http_discovery = urls
        self._write_configuration()
        self.reload()

    def set_scrape_interval(self, seconds: float) -> None:
        """Change how often every target is scraped, and reload."""
        self._scrape_interval_seconds = seconds
        self._write_configuration()
        self.reload()

    def set_native_histograms(self, wanted: bool) -> None:
        """Store the histograms of the job `targets` as native ones instead of as classic buckets, and reload."""
        self._native_histograms = wanted
        self._write_configuration()
        self.reload()

    def write(self, series: Iterable[TimeSeries]) -> None:
        """Write samples of the last weeks, in any order; the database must have been made to accept the past.

        Raises:
            HarnessError: Prometheus refuses them; says why.
        """
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        for body in write_requests(series):
            answer = self._http.post(f"{self.url}/api/v1/write", data=body, headers=headers, timeout=60.0)
            if not answer.ok:
                raise HarnessError(f"Prometheus refuses samples: {answer.text.strip()}")

    def reload(self) -> None:
        """Make Prometheus read its configuration again.

        Raises:
            HarnessError: it refuses it; says why.
        """
        answer = self._http.post(f"{self.url}/-/reload", timeout=10.0)
        if answer.status_code != requests.codes.ok:
            raise HarnessError(f"Prometheus refuses its configuration: {answer.text.strip()}")

    def outage(self) -> Outage:
        """Stop Prometheus; its data stay, and the returned outage starts it again on the same port."""
        command = self._processes.stop(PROMETHEUS)
        if command is None:
            raise HarnessError("Prometheus does not run")
        wait_until_free(self._port)
        return Outage(processes=self._processes, command=command)

    def query(self, expression: str, *, at_unix_seconds: float | None = None) -> list[dict[str, Any]]:
        """Return the vector that an instant query answers, as the HTTP API writes it.

        Raises:
            HarnessError: Prometheus refuses the query; says why.
        """
        parameters = {"query": expression} | ({} if at_unix_seconds is None else {"time": str(at_unix_seconds)})
        answer = self._http.get(f"{self.url}/api/v1/query", params=parameters, timeout=10.0)
        if answer.status_code != requests.codes.ok:
            raise HarnessError(f"{expression}: {answer.text.strip()}")
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """Return the one value of an instant query; None when nothing matches.

        Raises:
            HarnessError: Prometheus refuses the query, or it matches several series.
        """
        vector = self.query(expression)
        if len(vector) > 1:
            raise HarnessError(f"{expression} matches {len(vector)} series, one was expected")
        return float(vector[0]["value"][1]) if vector else None

    def _write_configuration(self) -> None:
        # Prometheus wants the timeout to be no longer than the interval.
        interval = f"{round(self._scrape_interval_seconds * 1000)}ms"
        jobs: list[dict[str, Any]] = [
            {
                "job_name": "targets",
                "convert_classic_histograms_to_nhcb": self._native_histograms,
                "file_sd_configs": [{"files": [str(self._targets)], "refresh_interval": "30s"}],
            },
            *(
                {
                    "job_name": f"discovered-{number}",
                    "http_sd_configs": [{"url": url, "refresh_interval": "1s"}],
                }
                for number, url in enumerate(self._http_discovery)
            ),
        ]
        content: dict[str, Any] = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "scrape_configs": jobs,
        }
        if self._accepts_the_past:
            content["storage"] = {"tsdb": {"out_of_order_time_window": "30d"}}
        self._configuration.write_text(yaml.safe_dump(content, sort_keys=False))


@contextmanager
def past_prometheus(directory: Path) -> Iterator[Prometheus]:
    """One without a cluster and without targets, for samples of the last weeks; it ends with the context."""
    processes, ports = ProcessGroup(directory), PortReservation()
    prometheus = Prometheus(
        components=ensure_components(),
        processes=processes,
        ports=ports,
        directory=directory / "prometheus",
        accepts_the_past=True,
    )
    try:
        prometheus.start()
        yield prometheus
    finally:
        processes.stop_all()
        ports.release()


def target_group(target: Target) -> dict[str, Any]:
    """Return the target in the format of file and HTTP service discovery (which wants a list of them).

    Raises:
        ValueError: the URL has no scheme or no host.
    """
    parts = urlsplit(target.url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError(f"target url {target.url!r}: want http://HOST:PORT/PATH")
    labels = {
        "__scheme__": parts.scheme,
        "__metrics_path__": parts.path or "/metrics",
        **{
            f"__param_{key}": value
            for key, _, value in (pair.partition("=") for pair in parts.query.split("&") if pair)
        },
        **target.labels,
    }
    return {"targets": [parts.netloc], "labels": labels}
