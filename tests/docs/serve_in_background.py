"""``corea serve``, left running: returns once it listens. Usage: serve_in_background.py STATE PORT serve [options].

A page that starts it twice means that the first was stopped. Its process id is in STATE.pid, what it says in STATE.log.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

LIMIT_S = 300


def main(state: str, port: str, *args: str) -> int:
    """Exit code 0 once it listens; else its own, with what it said. A port in ``args`` gives way to ``port``."""
    pid, log = Path(f"{state}.pid"), Path(f"{state}.log")
    if pid.exists():
        _stop(int(pid.read_text()))
    with log.open("w") as said:
        server = subprocess.Popen([sys.executable, "-m", "corea", *args, "--port", port], stdout=said, stderr=said)
    pid.write_text(str(server.pid))
    until = time.monotonic() + LIMIT_S
    while "listening on" not in log.read_text() and server.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    sys.stderr.write(log.read_text())
    return 0 if "listening on" in log.read_text() else server.poll() or 1


def _stop(pid: int) -> None:
    """As Ctrl-C does, and wait until its port is free."""
    with suppress(ProcessLookupError):
        # It is not our child, so only its end itself can be waited for.
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGINT)
        select.select([handle], [], [], LIMIT_S)
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
