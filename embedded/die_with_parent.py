"""Runs a command that must not outlive its parent: `die_with_parent.py PARENT_PID COMMAND...`.

It is a script of its own, run with -I -S: it costs a few milliseconds, and no code runs between fork and exec.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Ask the kernel for SIGKILL when the parent dies, then become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before this call
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the command replaces this process


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
