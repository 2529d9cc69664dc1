"""The LiteLLM proxy, in an environment of its own in the cache: its pins are not ours.

Malicious releases of it have been on PyPI (docs/litellm.md).
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import requests

from longtail_e2e.cluster import Cluster
from longtail_e2e.pinned import installed
from longtail_e2e.ports import LOOPBACK
from longtail_e2e.processes import Command
from longtail_e2e.progress import Progress, silent

INTEGRATION: Final = Path(__file__).resolve().parents[2] / "integrations" / "litellm"
_REQUIREMENTS: Final = INTEGRATION / "requirements-test.txt"
_AUTHENTICATION: Final = """\
from litellm.proxy._types import UserAPIKeyAuth
async def auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, metadata=KEYS[api_key])
"""


def ensure_litellm(*, progress: Progress = silent) -> Path:
    """Return the command ``litellm``, after installing it when the cache does not hold this very set of packages.

    Raises:
        HarnessError: uv is missing, a file is not the one in the repository's list, or one would start by itself.
    """
    step = "Installing the LiteLLM proxy (600 MB)"
    return installed("litellm", _REQUIREMENTS, step=step, progress=progress) / "bin" / "litellm"


class LiteLlm:
    """A proxy with the hook, on loopback. ``directory`` holds its configuration."""

    def __init__(self, program: Path, *, name: str, port: int, directory: Path) -> None:
        self.name = name
        self.url = f"http://{LOOPBACK}:{port}"
        # Without one it does not start.
        self.key = f"sk-{secrets.token_hex(16)}"
        self._program, self._port, self._directory = program, port, directory

    def command(
        self,
        *,
        models: Mapping[str, Mapping[str, Any]],
        environment: Mapping[str, str],
        callbacks: Sequence[str] = ("longtail_effort.hook",),
        general_settings: Mapping[str, Any] | None = None,
        metadata_labels: Sequence[str] = (),
    ) -> Command:
        """How it is started; ``models`` are LiteLLM's ``litellm_params`` by model name."""
        configuration = {
            "model_list": [{"model_name": name, "litellm_params": dict(each)} for name, each in models.items()],
            "litellm_settings": {
                "callbacks": list(callbacks),
                "num_retries": 0,
                "drop_params": True,
                "require_auth_for_metrics_endpoint": False,
                "custom_prometheus_metadata_labels": list(metadata_labels),
            },
            "router_settings": {"disable_cooldowns": True},
            "general_settings": dict(general_settings or {}),
        }
        file = self._directory / "config.yaml"
        file.write_text(json.dumps(configuration, indent=2))  # which is YAML
        return Command(
            name=self.name,
            arguments=[str(self._program), "--config", str(file), "--host", LOOPBACK, "--port", str(self._port)],
            environment={
                "PYTHONPATH": str(INTEGRATION),
                "LITELLM_MASTER_KEY": self.key,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # not from the network
                "LITELLM_TELEMETRY": "False",
                "NO_PROXY": LOOPBACK,
                **environment,
            },
            ready=lambda: self._get("/health/liveliness").status_code == requests.codes.ok,
            ready_seconds=120.0,
            stop_seconds=20.0,
        )

    def _get(self, path: str, *, seconds: float = 2.0) -> requests.Response:
        return requests.get(self.url + path, timeout=seconds, headers={"Authorization": f"Bearer {self.key}"})

    def metrics(self) -> str:
        """Return the proxy's /metrics."""
        return self._get("/metrics/", seconds=30.0).text

    def ask(self, model: str, *, key: str | None = None, path: str = "/v1/chat/completions", **fields: Any) -> Any:
        """Send a request; ``key`` is the client's."""
        body = {"model": model, "messages": [{"role": "user", "content": "why is that"}], **fields}
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return requests.post(self.url + path, json=body, headers=headers, timeout=60.0)


def settings_for_keys(folder: Path, keys: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """General settings of a proxy in ``folder`` that knows these keys with their metadata.

    Keys with metadata need a database; this is what LiteLLM asks in its place.
    """
    known = {key: dict(metadata) for key, metadata in keys.items()}
    (folder / "keys.py").write_text(f"KEYS = {known!r}\n{_AUTHENTICATION}")
    return {"custom_auth": "keys.auth"}


def thinking_engine(name: str, port: int, *flags: str) -> Command:
    """A simulated engine with vLLM's chat API; ``flags`` are those of ``longtail.workbench.engine.serve``."""
    return Command(
        name=name,
        arguments=[sys.executable, "-m", "longtail.workbench.engine.serve", f"--port={port}", *flags],
        ready=lambda: requests.get(f"http://{LOOPBACK}:{port}/health", timeout=2.0).ok,
    )


def mounted_account(cluster: Cluster, namespace: str, folder: Path) -> Path:
    """What a kubelet mounts into a pod of the service account ``litellm``, which may read one ConfigMap.

    The namespace is made where there is none.
    """
    rbac = "rbac.authorization.k8s.io"
    name = {"name": "litellm", "namespace": namespace}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["r1-effort"], "verbs": ["get"]}
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": name, "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "litellm"},
            "subjects": [{"kind": "ServiceAccount", **name}],
        },
    )
    (folder / "token").write_text(cluster.kubectl("create", "token", "litellm", "-n", namespace))
    (folder / "ca.crt").write_bytes(cluster.control_plane.certificate_authority.read_bytes())
    return folder
