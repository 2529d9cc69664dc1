"""The real Helm: it lints, renders, and installs into the cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from longtail_e2e.build import ChartTools
from longtail_e2e.errors import CommandError

CHARTS: Final = Path(__file__).resolve().parents[2] / "charts"

Manifest = dict[str, Any]
Values = Mapping[str, Any]


class Helm:
    """Runs Helm commands; call it with the arguments of one. Without a kubeconfig it can lint and render."""

    def __init__(self, tools: ChartTools, *, home: Path, kubeconfig: Path | None = None) -> None:
        """Wrap it; what it keeps is in the folder ``home``."""
        self._command = [str(tools.helm)]
        self._home = home
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))},
            **{f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")},
            # A cluster that nobody named is never reached by accident.
            "KUBECONFIG": os.devnull if kubeconfig is None else str(kubeconfig),
        }

    def __call__(self, *arguments: str, values: Values | None = None, timeout_seconds: float = 120.0) -> str:
        """Run one command and return its standard output; ``values`` are those of a chart.

        Raises:
            CommandError: with Helm's own words.
        """
        result = self.run(*arguments, values=values, timeout_seconds=timeout_seconds)
        if result.returncode != 0:
            said = f"{result.stdout}\n{result.stderr}".strip()
            raise CommandError(f"helm {' '.join(arguments)}: {said}")
        return result.stdout

    def run(
        self, *arguments: str, values: Values | None = None, timeout_seconds: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run one command and return its exit code and output, whatever they are."""
        given = [] if values is None else ["--values=-"]
        return subprocess.run(
            [*self._command, *arguments, *given],
            input="" if values is None else yaml.safe_dump(dict(values)),
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )

    def template(
        self, values: Values | None = None, *, namespace: str, chart: str = "longtail", hooks: bool = False
    ) -> list[Manifest]:
        """Render a chart of ours as release ``longtail``; with ``hooks`` those of `helm test` too."""
        skipped: Sequence[str] = () if hooks else ("--no-hooks",)
        text = self("template", "longtail", str(CHARTS / chart), f"--namespace={namespace}", *skipped, values=values)
        return [manifest for manifest in yaml.safe_load_all(text) if manifest]
