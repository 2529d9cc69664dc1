"""The command ``longtail`` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from longtail_e2e.errors import CommandError

PROGRAM: Final = str(Path(sys.executable).with_name("longtail"))
_TIMEOUT_SECONDS: Final = 300.0


def longtail(*arguments: str | Path, fails: bool = False, **environment: str) -> str:
    """Run the command in a wide terminal and return what it prints, or, where it is to fail, what it complains of.

    Raises:
        CommandError: it failed and was not to, the other way round, or it shows a traceback.
    """
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        env={**os.environ, "COLUMNS": "220", **environment},
        check=False,
    )
    if (done.returncode != 0) != fails or "Traceback" in done.stderr:
        raise CommandError(f"longtail {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stderr}")
    return done.stderr if fails else done.stdout
