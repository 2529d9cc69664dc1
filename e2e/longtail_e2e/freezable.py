"""``longtail``, whose event loop stands still for a while at each SIGUSR1.

What a long garbage collection or a blocking call in a library would do: the process lives, its sockets accept, its
threads run, and nothing on the loop does. Only tests run the operator like this.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Final

from longtail.cli.main import cli

FREEZE_SECONDS: Final = "LONGTAIL_E2E_FREEZE_SECONDS"


def freeze(_: int, __: FrameType | None) -> None:
    """Hold the main thread, which runs the loop; a signal's handler runs there between two bytecodes."""
    time.sleep(float(os.environ[FREEZE_SECONDS]))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, freeze)
    cli()
