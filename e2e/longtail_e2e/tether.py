"""`tether.py PARENT_PID COMMAND …` becomes COMMAND, which the kernel kills when its parent dies.

Setting the parent-death signal between fork and exec would need Python code in the forked child, which can
deadlock in a process with threads. So the child is this little program first; the setting and the process id
survive exec.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent_pid:
            # The parent died before the setting took effect, so no signal will come.
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 (no shell wanted)


if __name__ == "__main__":
    main()
