"""Other Python environments than our own: made with the uv of the checkout."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from longtail_e2e.errors import HarnessError

_REPOSITORY: Final = Path(__file__).resolve().parents[2]


def uv() -> str:
    """The command ``uv``, of the environment or of the checkout.

    Raises:
        HarnessError: there is none.
    """
    candidates = [Path(sys.executable).with_name("uv"), _REPOSITORY / ".uv" / "bin" / "uv"]
    for candidate in candidates:
        if candidate.exists():
            return str(candidate)
    on_path = shutil.which("uv")
    if on_path is None:
        raise HarnessError("the command `uv` is missing: run `make setup` first, or install it")
    return on_path


def clean_environment() -> dict[str, str]:
    """Without the settings of our own virtual environment."""
    ours = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT"}
    return {key: value for key, value in os.environ.items() if key not in ours}
