"""The administrator's file of metrics sources: YAML or JSON in, ``signals.sources`` values out.

    sources:
      default:
        url: https://prometheus.monitoring:9090
        bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
        caFile: /etc/longtail/ca.crt
        scrapeIntervalSeconds: 15
      tenant-a:
        url: https://mimir.example/prometheus
        basic: {username: longtail, passwordFile: /etc/longtail/mimir-password}
        mTLS: {certFile: /etc/longtail/tls.crt, keyFile: /etc/longtail/tls.key}
        headers: {X-Scope-OrgID: tenant-a}
        labels: {namespace: kubernetes_namespace, pod: kubernetes_pod_name}

No secret is in the file: it names the files that hold them, and those are read again when they change.
"""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from longtail.control.files import read_file
from longtail.signals.sources import BasicFile, BearerFile, ClientCertificate, LabelNames, MetricsSource

DEFAULT_SOURCE: Final = "default"


class _Entry(BaseModel):
    """Strict: a misspelt key is an error, not a default."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class BasicEntry(_Entry):
    """Basic authentication."""

    username: str
    password_file: Path


class MutualTLSEntry(_Entry):
    """The client's certificate."""

    cert_file: Path
    key_file: Path


class LabelsEntry(_Entry):
    """Names of the labels that the scrape configuration adds."""

    namespace: str = "namespace"
    pod: str = "pod"


class SourceEntry(_Entry):
    """One source. Without credentials it is asked without any."""

    url: str
    bearer_token_file: Path | None = None
    basic: BasicEntry | None = None
    mutual_tls: Annotated[MutualTLSEntry | None, Field(alias="mTLS")] = None
    ca_file: Path | None = None
    headers: dict[str, str] = {}
    labels: LabelsEntry = LabelsEntry()
    scrape_interval_seconds: Annotated[float, Field(gt=0)] = 15.0
    timeout_seconds: Annotated[float, Field(gt=0)] = 8.0

    @model_validator(mode="after")
    def _authenticates_one_way(self) -> Self:
        if self.bearer_token_file is not None and self.basic is not None:
            raise ValueError("bearerTokenFile and basic: give one of them")
        return self

    def to_source(self, name: str) -> MetricsSource:
        """Return the value that ``signals`` reads.

        Raises:
            SettingsError: see MetricsSource.
        """
        authentication: BearerFile | BasicFile | None = None
        if self.bearer_token_file is not None:
            authentication = BearerFile(token_file=self.bearer_token_file)
        elif self.basic is not None:
            authentication = BasicFile(username=self.basic.username, password_file=self.basic.password_file)
        certificate = None
        if self.mutual_tls is not None:
            certificate = ClientCertificate(cert_file=self.mutual_tls.cert_file, key_file=self.mutual_tls.key_file)
        return MetricsSource(
            name=name,
            url=self.url,
            authentication=authentication,
            client_certificate=certificate,
            ca_file=self.ca_file,
            headers=self.headers,
            labels=LabelNames(namespace=self.labels.namespace, pod=self.labels.pod),
            scrape_interval_seconds=self.scrape_interval_seconds,
            timeout_seconds=self.timeout_seconds,
        )


class SourcesFile(_Entry):
    """The whole file."""

    sources: dict[Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")], SourceEntry]


def read_sources(path: Path) -> tuple[MetricsSource, ...]:
    """Read the file.

    Raises:
        SettingsError: it is not there, not YAML, or an entry is wrong; the message names file, key and value.
    """
    file = read_file(path, SourcesFile, what="metrics sources")
    return tuple(entry.to_source(name) for name, entry in file.sources.items())
