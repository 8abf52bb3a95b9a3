"""Ends what a process has started once that process is gone, however it went.

A program of its own, with nothing but the standard library: it reads from its starter `+PID` for
each group of processes that begins and `-PID` for each that has ended. The end of that input is the
starter's end, by `kill -9` too; a signal for the death of a parent is Linux's alone, and comes with
the death of the thread that started the child. Its argument is the folder of jobs, if there is one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

GRACE = 10.0
"""Seconds in which processes may end by themselves."""


def main(lines: Iterable[str], folder: str = "") -> None:
    """Wait for the starter's end, and end what it has left."""
    # Ctrl-C goes to everybody at the terminal, and the starter has its own way to end.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    running: set[int] = set()
    for line in lines:
        (running.add if line[0] == "+" else running.discard)(int(line[1:]))
    _signal(running, signal.SIGTERM)
    until = time.monotonic() + GRACE
    while time.monotonic() < until and _signal(running, 0):
        time.sleep(0.05)
    _signal(running, signal.SIGKILL)
    if folder:
        end_jobs(Path(folder))


def end_jobs(folder: Path) -> None:
    """End the jobs of incidents, which outlive the responder that has started them."""
    for place in folder.glob("incidents/*/job-*/pid"):
        try:
            pid = int(place.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
        except (OSError, ValueError):
            continue
        # The number may be another process's by now.
        if str(folder) in words:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _signal(groups: set[int], one: int) -> bool:
    """Send it to each group; whether there was one that is still there."""
    found = False
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, one)
            found = True
    return found


if __name__ == "__main__":
    main(sys.stdin, *sys.argv[1:])
