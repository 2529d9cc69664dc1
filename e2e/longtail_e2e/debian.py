"""Debian packages that the tests need beside Go: installed where root and apt are at hand, and said so.

Everything else of the harness is built from Go modules and needs no root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from longtail_e2e.errors import BuildError
from longtail_e2e.progress import Progress, silent

Programs = Mapping[str, str]
"""Command to the Debian package that brings it."""

IMAGE_PROGRAMS: Final[Programs] = {"buildah": "buildah", "debootstrap": "debootstrap"}

# Of Debian's own folders: a user's PATH, and that of a cron job, may lack those with sbin.
PATH: Final = ":".join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
_APT_SECONDS: Final = 600.0


def program(name: str) -> str | None:
    """Return the path of a command; None where there is none."""
    return shutil.which(name, path=PATH)


def unavailable(programs: Programs) -> str | None:
    """Say why these commands are not to be had on this machine; None when they are here or can be installed."""
    if os.geteuid() != 0:
        return f"{_names(programs)} work as root only, and this is user {os.geteuid()}"
    missing = _missing(programs)
    if missing and program("apt-get") is None:
        return f"there is no {_names(missing)} on this machine, and no apt-get to install Debian's with"
    return None


def ensure_programs(programs: Programs, *, progress: Progress = silent) -> None:
    """Install the packages of the commands that are missing.

    Raises:
        BuildError: not root, no apt-get, or it failed; with its last lines.
    """
    reason = unavailable(programs)
    if reason is not None:
        raise BuildError(reason)
    missing = _missing(programs)
    if not missing:
        return
    step = f"Installing Debian packages: {_names(missing)}"
    progress(step)
    packages = sorted(set(missing.values()))
    options = ("--quiet", "--yes", "--no-install-recommends", f"--option=DPkg::Lock::Timeout={_APT_SECONDS:.0f}")
    for arguments in (("update", "--quiet"), ("install", *options, *packages)):
        run = subprocess.run(
            ["apt-get", "--option=Acquire::Retries=3", *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": PATH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_APT_SECONDS,
        )
        if run.returncode != 0:
            said = "\n".join(run.stdout.splitlines()[-20:])
            raise BuildError(f"`apt-get {' '.join(arguments)}` exited with {run.returncode}:\n{said}")
    still = _missing(programs)
    if still:
        raise BuildError(f"apt-get installed {_names(still)}, and the command is still not there")
    progress(step, done=True)


def _missing(programs: Programs) -> Programs:
    return {command: package for command, package in programs.items() if program(command) is None}


def _names(programs: Programs) -> str:
    return " and ".join(sorted(programs))
