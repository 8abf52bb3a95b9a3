"""Long work of an incident: commands in a process of its own, which outlives the responder."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from .._errors import OperationError
from ._files import put

_PROGRAM = "import sys; from withstand.cli import main; sys.argv[0] = 'withstand'; main()"
# Children whose end is taken note of, so that none stays behind as a zombie.
_STARTED: list[subprocess.Popen[bytes]] = []
_LOOKS = 100
_RUNNER = "import sys; from withstand.respond._job import run; run(sys.argv[1])"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job has got: `codes` are the exit codes of the commands that have ended."""

    state: Literal["none", "running", "ended", "lost"]
    codes: tuple[int, ...] = ()


class Job:
    """Commands of the command line, one after the other as long as they end with 0, in a folder.

    Each one's output goes to a log file there. The folder's lock is held by whatever runs, so that
    a job never runs twice at one time, and one whose processes were killed is known as lost: it may
    be started again, and what has ended with 0 is not done again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, commands: list[list[str]], root: Path) -> None:
        """Run commands with the working directory `root`; nothing where it runs or has ended."""
        if self.progress.state in ("running", "ended"):
            return
        told = {"commands": commands, "root": str(root.absolute()), "began": time.time()}
        (self.folder / "pid").unlink(missing_ok=True)
        put(self.folder / "job.json", json.dumps(told, indent=2) + "\n")
        _STARTED.append(
            subprocess.Popen(
                [sys.executable, "-c", _RUNNER, str(self.folder.absolute())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        # It has taken the lock when it is known as running.
        for _ in range(200):
            if (self.folder / "pid").exists():
                return
            time.sleep(0.05)
        raise OperationError(f"the job in {self.folder} does not start; see the machine's load")

    @property
    def progress(self) -> Progress:
        """How far it has got."""
        _STARTED[:] = [one for one in _STARTED if one.poll() is None]
        if not (self.folder / "job.json").exists():
            return Progress(state="none")
        if self._held():
            return Progress(state="running", codes=tuple(_codes(self.folder)))
        codes = tuple(_codes(self.folder))
        commands = json.loads((self.folder / "job.json").read_text())["commands"]
        over = len(codes) == len(commands) or any(codes)
        return Progress(state="ended" if over else "lost", codes=codes)

    def log(self, most: int = 2000) -> str:
        """The end of the last command's output."""
        logs = sorted(self.folder.glob("*.log"))
        return logs[-1].read_text("utf-8", "replace")[-most:] if logs else ""

    def stop(self) -> None:
        """End what runs."""
        if self._held():
            with suppress(OSError, ValueError):
                os.killpg(int((self.folder / "pid").read_text()), signal.SIGTERM)

    def _held(self) -> bool:
        with (self.folder / ".lock").open("a") as file:
            try:
                # Shared, so that two who look at once do not take each other for the job.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False


def run(place: str) -> None:
    """Run a folder's commands; in the job's own process."""
    folder = Path(place)
    told: dict[str, Any] = json.loads((folder / "job.json").read_text())
    with (folder / ".lock").open("a") as lock:
        if not _locked(lock):
            return
        put(folder / "pid", str(os.getpid()))
        done = _codes(folder)
        for number, words in list(enumerate(told["commands"]))[len(done) :]:
            if any(done):
                return
            with (folder / f"{number}-{words[0]}.log").open("ab") as log:
                # The lock goes along: it is held as long as any of them lives.
                ended = subprocess.run(
                    [sys.executable, "-c", _PROGRAM, *words],
                    cwd=told["root"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock.fileno(),),
                )
            done.append(ended.returncode)
            put(folder / "codes.json", json.dumps(done))


def _locked(lock: TextIO) -> bool:
    """Whether the lock was free: whoever looks whether the job runs holds it for a moment, too."""
    for _ in range(_LOOKS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
    return False


def _codes(folder: Path) -> list[int]:
    try:
        found: list[int] = json.loads((folder / "codes.json").read_text())
    except FileNotFoundError:
        return []
    return found
