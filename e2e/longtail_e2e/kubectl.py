"""The real kubectl, on the cluster's kubeconfig."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from longtail_e2e.errors import CommandError
from longtail_e2e.processes import wait_until

Manifest = Mapping[str, Any]


class Kubectl:
    """Runs kubectl commands; call it with the arguments of one."""

    def __init__(self, *, command: Sequence[str], kubeconfig: Path, cache: Path) -> None:
        self._command = list(command)
        self._kubeconfig = kubeconfig
        self._cache = cache

    def using(self, kubeconfig: Path) -> Kubectl:
        """Return a kubectl that is whoever this other kubeconfig names."""
        return Kubectl(command=self._command, kubeconfig=kubeconfig, cache=self._cache)

    def __call__(
        self,
        *arguments: str,
        manifests: Manifest | Sequence[Manifest] | str = (),
        timeout_seconds: float = 60.0,
    ) -> str:
        """Run one command and return its standard output; `manifests` go to its standard input.

        Raises:
            CommandError: with the API server's own words.
        """
        result = self.run(*arguments, manifests=manifests, timeout_seconds=timeout_seconds)
        if result.returncode != 0:
            raise CommandError(f"kubectl {' '.join(arguments)}: {(result.stderr or result.stdout).strip()}")
        return result.stdout

    def run(
        self,
        *arguments: str,
        manifests: Manifest | Sequence[Manifest] | str = (),
        timeout_seconds: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command and return its exit code and output, whatever they are."""
        return subprocess.run(
            [*self._command, f"--kubeconfig={self._kubeconfig}", f"--cache-dir={self._cache}", *arguments],
            input=_as_yaml(manifests),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )

    def apply(self, *manifests: Manifest, server_side: bool = False) -> str:
        """Apply manifests given as mappings."""
        return self("apply", *(["--server-side"] if server_side else []), "-f", "-", manifests=manifests)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object, such as `get("deployment", "r1", "-n", "inference")`, or a List."""
        answer: dict[str, Any] = json.loads(self("get", *arguments, "-o", "json"))
        return answer

    def wait_until(
        self, condition: Callable[[dict[str, Any]], bool], *arguments: str, timeout_seconds: float = 60.0
    ) -> dict[str, Any]:
        """Ask for an object (or List) again and again until `condition` is true of it, and return it.

        Raises:
            NotYetError: not true in time.
            CommandError: the object is not there.
        """
        seen: dict[str, Any] = {}

        def holds() -> bool:
            nonlocal seen
            seen = self.get(*arguments)
            return condition(seen)

        wait_until(
            holds,
            timeout_seconds=timeout_seconds,
            what=f"kubectl get {' '.join(arguments)}",
            interval_seconds=0.2,
        )
        return seen

    def wait_until_served(self, *definitions: str) -> None:
        """Wait until the kinds of these CustomResourceDefinitions, named as for `kubectl get`, are served.

        Not by `kubectl wait`: it gives up on a definition whose first condition is not written yet.

        Raises:
            NotYetError: they are not in time.
        """

        def established(found: dict[str, Any]) -> bool:
            conditions = [each.get("status", {}).get("conditions") or () for each in found.get("items", [found])]
            return all(any((c["type"], c["status"]) == ("Established", "True") for c in own) for own in conditions)

        self.wait_until(established, *definitions, timeout_seconds=30.0)


def _as_yaml(manifests: Manifest | Sequence[Manifest] | str) -> str:
    if isinstance(manifests, str):
        return manifests
    return yaml.safe_dump_all([manifests] if isinstance(manifests, Mapping) else list(manifests))
