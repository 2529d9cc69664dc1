"""Where metrics are read from: the administrator's sources, as plain values.

A user's object names a source and nothing else, so no URL, header or credential ever comes from a user.
Secrets are paths: the files are read when a request is sent, because projected tokens rotate every hour.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from longtail.errors import SettingsError

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class BearerFile:
    """``Authorization: Bearer`` with the content of a file."""

    token_file: Path


@dataclass(frozen=True, slots=True)
class BasicFile:
    """Basic authentication with the password in a file."""

    username: str
    password_file: Path


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The client's half of mutual TLS."""

    cert_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class LabelNames:
    """Names of the labels that the scrape configuration adds to every series.

    ``namespace`` and ``pod`` are what a PodMonitor or ServiceMonitor writes; a hand-made
    ``kubernetes_sd`` may write ``kubernetes_pod_name``, OpenTelemetry ``k8s_pod_name``.

    Raises:
        SettingsError: a name is not a Prometheus label name.
    """

    namespace: str = "namespace"
    pod: str = "pod"

    def __post_init__(self) -> None:
        for key, value in (("namespace", self.namespace), ("pod", self.pod)):
            if not _LABEL_NAME.fullmatch(value):
                raise SettingsError(f"labels.{key}: {value!r} is not a Prometheus label name")


@dataclass(frozen=True, slots=True)
class MetricsSource:
    """One Prometheus, or anything that speaks its query API (Thanos, Mimir, VictoriaMetrics, ...).

    Raises:
        SettingsError: the URL is unusable, or a duration or count is not positive.
    """

    name: str
    url: str
    """Base URL with its path prefix, without ``/api/v1``; credentials in it are refused."""
    authentication: BearerFile | BasicFile | None = None
    client_certificate: ClientCertificate | None = None
    ca_file: Path | None = None
    """Authorities to trust instead of the system's."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, for example ``X-Scope-OrgID``."""
    labels: LabelNames = field(default_factory=LabelNames)
    scrape_interval_seconds: float = 15.0
    """How often the engines are scraped: a sample older than two of these is stale."""
    connect_timeout_seconds: float = 2.0
    timeout_seconds: float = 8.0
    """For one query, from asking to the last byte. The server is told, so that it stops too."""
    concurrency: int = 12
    """Queries in flight at once. A tick asks eleven; Prometheus runs 20 at a time by default."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError(f"metrics source {self.name!r}: url: {self.url!r} is not an http(s) URL")
        if parts.username is not None or parts.password is not None:
            raise SettingsError(f"metrics source {self.name!r}: url: credentials belong in a file, not in the URL")
        if parts.query or parts.fragment:
            raise SettingsError(f"metrics source {self.name!r}: url: {self.url!r} must end with its path")
        for key in ("scrape_interval_seconds", "connect_timeout_seconds", "timeout_seconds", "concurrency"):
            if not getattr(self, key) > 0:
                raise SettingsError(f"metrics source {self.name!r}: {key}: must be > 0, got {getattr(self, key)!r}")

    @property
    def freshness_limit_seconds(self) -> float:
        """Age beyond which a sample says nothing about now: one scrape may be missed, not two."""
        return 2.0 * self.scrape_interval_seconds
