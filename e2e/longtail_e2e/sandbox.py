"""Runs a command where it may do as it likes: own network, own mounts, own processes, all of which end with it.

``python -m longtail_e2e.sandbox COMMAND …`` first builds what a real node needs, with the network of the machine, then
starts the command in namespaces of its own. There is no other way out of these than to end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from longtail_e2e import debian, image
from longtail_e2e.build import ensure_chart_tools, ensure_components, ensure_node_components, unavailable
from longtail_e2e.contained import contained
from longtail_e2e.errors import BuildError
from longtail_e2e.node import CGROUP, CGROUP_VARIABLE
from longtail_e2e.processes import wait_until
from longtail_e2e.progress import PrintedProgress, Progress

VARIABLE: Final = "LONGTAIL_E2E_SANDBOX"
"""Set for the command: to why there is no sandbox, or to nothing."""
_PROGRAMS: Final[debian.Programs] = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
}
# Over folders that containerd, kubelet and others have their sockets and notes in, whatever they are told.
_OWN_FOLDERS: Final = ("/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet")


def unfit() -> str | None:
    """Say why this machine cannot be a node; None when it can."""
    reason = unavailable() or debian.unavailable(_PROGRAMS) or image.unavailable()
    if reason is not None:
        return reason
    if not any((Path("/sys/fs/cgroup") / name).exists() for name in ("memory", "cgroup.controllers")):
        return "a node needs cgroups, and /sys/fs/cgroup has none"
    tried = subprocess.run(_inside("true"), capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"namespaces are not to be had: {tried.stderr.strip()}"


def build(*, progress: Progress) -> None:
    """Build and install what a node needs that the cache and the machine do not have.

    Raises:
        BuildError: a download or a build failed.
    """
    debian.ensure_programs(_PROGRAMS, progress=progress)
    ensure_components(progress=progress)
    ensure_node_components(progress=progress)
    ensure_chart_tools(progress=progress)
    image.ensure_image(progress=progress)


def run(command: Sequence[str], *, reason: str | None) -> int:
    """Run a command in a sandbox, or, with a ``reason`` not to, as it is; return its exit code."""
    group = f"{CGROUP}{os.getpid()}"
    environment = os.environ | {VARIABLE: reason or "", CGROUP_VARIABLE: group, "PATH": debian.PATH}
    arguments = list(command) if reason else _inside(*command)
    try:
        return subprocess.run(arguments, env=environment, check=False).returncode
    finally:
        _remove_cgroups(group)


def _inside(*command: str) -> list[str]:
    return contained(*command, own_folders=_OWN_FOLDERS, own_network=True)


def _remove_cgroups(group: str) -> None:
    """Remove the folders of cgroups, which outlive their processes, from the innermost out."""
    for root in Path("/sys/fs/cgroup").glob(f"*/{group}"):
        for folder, _, _ in os.walk(root, topdown=False):
            wait_until(partial(_removed, Path(folder)), timeout_seconds=10.0, what=f"the end of all in {folder}")


def _removed(folder: Path) -> bool:
    # Some hierarchies have two names.
    if folder.exists():
        folder.rmdir()
    return True


def main(command: Sequence[str]) -> int:
    """Build what is needed, and run the command in a sandbox if there can be one."""
    reason = unfit()
    try:
        if reason is None:
            build(progress=PrintedProgress())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return run(command, reason=reason)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
