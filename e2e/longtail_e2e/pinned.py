"""Other people's programs from PyPI, each in an environment of its own in the cache: their pins are not ours.

Every file is the one whose hash is in the repository, nothing is built, and before any Python of the environment starts
it is made sure that nothing in it starts by itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from longtail_e2e.build import cache_directory, locked
from longtail_e2e.errors import HarnessError
from longtail_e2e.progress import Progress, silent
from longtail_e2e.python import clean_environment, uv

_STARTUP: Final = ("*.pth", "sitecustomize*", "usercustomize*")
"""What Python runs, or may run, before the first line of a program."""
_KEPT_SECONDS: Final = 86_400.0


def installed(name: str, requirements: Path, *, step: str, progress: Progress = silent) -> Path:
    """Return an environment, after making it where the cache does not hold this very set of packages.

    Args:
        name: of the program; a folder of the cache.
        requirements: the packages, by hash.
        step: what to say while it is installed.
        progress: whom to tell.

    Raises:
        HarnessError: uv is missing, a file is not the one in the repository's list, or one would start by itself.
    """
    key = hashlib.sha256(repr(sys.version_info[:2]).encode() + requirements.read_bytes()).hexdigest()[:16]
    cache = cache_directory() / name
    directory = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock", progress=progress):
        if not (directory / "complete").exists():
            for other in cache.iterdir():  # hundreds of MB each; another checkout may be using its own
                if other.is_dir() and time.time() - other.stat().st_mtime > _KEPT_SECONDS:
                    shutil.rmtree(other)
            shutil.rmtree(directory, ignore_errors=True)
            progress(step)
            _install(directory, requirements)
            (directory / "complete").touch()
            progress(step, done=True)
        os.utime(directory)
    return directory


def _install(directory: Path, requirements: Path) -> None:
    options = ("--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:")
    python = directory / "bin" / "python"
    for arguments in (
        ("venv", "--quiet", "--python", sys.executable, directory),
        ("pip", "install", *options, "--python", python, "--requirement", requirements),
    ):
        done = subprocess.run(
            ["nice", uv(), *map(str, arguments)], capture_output=True, text=True, check=False, env=clean_environment()
        )
        if done.returncode != 0:
            raise HarnessError(f"uv {arguments[0]} failed:\n{done.stderr[-3000:]}")
    found = startup_code(directory)
    if found:
        shutil.rmtree(directory)
        raise HarnessError(f"installed packages would start by themselves, and were removed: {', '.join(found)}")


def startup_code(environment: Path) -> list[str]:
    """Name the files of an environment that Python would run by itself; uv's own are not among them."""
    uvs = {"_virtualenv.pth"}
    folders = environment.glob("lib*/python*/site-packages")
    found = {path.name for folder in folders for pattern in _STARTUP for path in folder.glob(pattern)}
    return sorted(found - uvs)
