"""Runs as a small program of its own between the gateway and llama-server, then becomes it.

``python -I -S launch.py PARENT_PID OPEN_FILES PROGRAM ARG...`` asks the kernel to kill this
process when the gateway dies, also by SIGKILL (prctl(2), PR_SET_PDEATHSIG), and then execs
PROGRAM, which inherits that, the soft limit OPEN_FILES, and no open file but the first three.
Doing it here, and not in a ``preexec_fn``, keeps Python code out of the moment between fork and
exec, where a threaded parent may deadlock (CPython documentation, subprocess).
"""

import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG = 1
#: SIGKILL. The module signal takes as long to import as all else here.
_SIGKILL = 9


def main(argv: list[str]) -> None:
    """Replace this process by llama-server, or exit with 127, as a shell does. Never returns."""
    parent, open_files, program = int(argv[1]), int(argv[2]), argv[3]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL) != 0:
        sys.stderr.write(
            f"cannot ask for a parent-death signal: {os.strerror(ctypes.get_errno())}\n"
        )
    if os.getppid() != parent:  # it died before the line above took hold
        sys.exit(1)
    # Python's own files are closed by exec; uvloop lets through what the gateway itself inherited
    # (a listening socket of systemd's), and the pipes of a child that starts at the same time.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # After closerange(), which asks for the limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, hard))
    try:
        os.execvp(program, argv[3:])  # noqa: S606 - the one thing this program is for
    except OSError as error:
        sys.stderr.write(f"cannot start {program}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv)
