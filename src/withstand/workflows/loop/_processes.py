"""The processes of the loop: started, waited for, and all of them ended by their ids."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from ..._errors import OperationError, one_line
from . import _leash
from ._leash import GRACE, end_jobs

_PROGRAM = "import sys; from withstand.cli import main; sys.argv[0] = 'withstand'; main()"


class Processes:
    """Programs with a log file each; `end` leaves none of them behind.

    Each one is the first of a group of its own, so that what it has started ends with it. If this
    process is killed, a small one beside it ends them. jobs: a folder of incidents whose jobs are
    ended too.
    """

    def __init__(
        self, logs: Path, environment: Mapping[str, str], *, jobs: Path | None = None
    ) -> None:
        self._logs, self._environment, self._jobs = logs, {**os.environ, **environment}, jobs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._leash: subprocess.Popen[bytes] | None = None
        logs.mkdir(parents=True, exist_ok=True)

    def verb(self, name: str, *words: str) -> None:
        """Start a verb of the command line that goes on."""
        self.program(name, "-c", _PROGRAM, *words)

    def program(self, name: str, *words: str) -> None:
        """Start a Python program that goes on."""
        if self._leash is None:
            folder = () if self._jobs is None else (str(self._jobs),)
            self._leash = subprocess.Popen(
                [sys.executable, "-I", _leash.__file__, *folder], stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment, start_new_session=True,
            )  # fmt: skip
        self._tell("+", self._running[name].pid)

    def run(self, name: str, *words: str, codes: tuple[int, ...] = (0,)) -> int:
        """Run a verb to its end; raises OperationError for another exit code than these."""
        self.verb(name, *words)
        process = self._running[name]
        try:
            code = process.wait()
        finally:
            self.stop(name)
        if code not in codes:
            raise OperationError(
                f"withstand {' '.join(words[:2])} ended with {code}: {self.said(name)}"
            )
        return code

    def alive(self, name: str) -> bool:
        """Whether one runs."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def said(self, name: str) -> str:
        """The last line of a log."""
        text = (self._logs / f"{name}.log").read_text("utf-8", "replace").strip()
        return one_line(text.rpartition("\n")[2], 300) or "it said nothing"

    def check(self) -> None:
        """Raise OperationError where one that should go on has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise OperationError(f"{name} has ended ({process.returncode}): {self.said(name)}")

    def stop(self, name: str) -> None:
        """End one, and what it has started."""
        process = self._running.pop(name, None)
        if process is not None:
            _end([process])
            self._tell("-", process.pid)

    def end(self) -> None:
        """End all, the last one first."""
        processes = list(reversed(self._running.values()))
        self._running = {}
        _end(processes)
        if self._jobs is not None:
            end_jobs(self._jobs)
        for process in processes:
            self._tell("-", process.pid)
        if self._leash is not None:
            leash, self._leash = self._leash, None
            assert leash.stdin is not None
            leash.stdin.close()
            leash.wait()

    def pids(self) -> list[int]:
        """The ids of those that run."""
        return [one.pid for one in self._running.values() if one.poll() is None]

    def _tell(self, what: str, pid: int) -> None:
        """Tell the process beside this one; without it they still end by `end`."""
        if self._leash is not None and self._leash.stdin is not None:
            with suppress(BrokenPipeError):
                self._leash.stdin.write(f"{what}{pid}\n".encode())
                self._leash.stdin.flush()


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    until = time.monotonic() + GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def answers(port: int, path: str) -> bool:
    """Whether a server of this machine answers with 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def until(holds: Callable[[], Any], what: str, processes: Processes, seconds: float = 120.0) -> Any:
    """What a question is answered as soon as that is something; OperationError where it is not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        processes.check()
        time.sleep(0.1)
    raise OperationError(f"{what} has not happened within {seconds:g} s; see the logs")
