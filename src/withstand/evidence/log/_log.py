"""The append-only log: every record follows from the one before, and is on the disk in groups."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ..._errors import EvidenceError, one_line
from ..._version import __version__
from .._shard import sync_folder
from ._record import KIND, Head, content_text, encode
from ._segment import Break, beginning, last_record, name_of, number_of, segments, walk

_RETRY = 0.5


class BusyError(EvidenceError):
    """Another process writes this log."""


class _Waiting(NamedTuple):
    wall: float
    mono: float
    kind: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a log has done since it was opened.

    written: records that are on the disk. dropped: that might be dropped, and were, when the queue
    filled up. refused: that must not be dropped, and found the queue full. failures: of writing;
    error: the last one's message while it lasts. waiting: records in the queue.
    """

    written: int
    dropped: int
    refused: int
    failures: int
    error: str | None
    waiting: int


class Log:
    """A log in a folder, with one writer at a time, for `with`.

    Records are written in groups of at most `group`, at latest `wait` seconds after the first, and
    count as written when they are on the disk. At most `most` wait in memory: from half of that on,
    those that may be dropped are dropped, and what was lost stands in a record of kind gap. A
    segment has about `segment_bytes`, or the records of `segment_seconds`: it is whole segments
    that are purged one day. committed: told each head that is on the disk, by the writer's thread;
    it must not raise. Raises EvidenceError for a folder that cannot be written or that was changed,
    and BusyError for one that another writer holds.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        group: int = 256,
        wait: float = 0.02,
        most: int = 10_000,
        segment_bytes: int = 64 * 2**20,
        segment_seconds: float = 86_400.0,
        committed: Callable[[Head], None] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.boot = uuid.uuid4().hex
        self._group, self._wait, self._most = group, wait, most
        self._segment_bytes, self._segment_seconds = segment_bytes, segment_seconds
        self._committed, self._began = committed, 0.0
        self._queue: deque[_Waiting] = deque()
        # Held by itself it takes half the time that the condition takes for that.
        self._mutex = threading.RLock()
        self._signal = threading.Condition(self._mutex)
        self._written = self._dropped = self._refused = self._failures = self._taken = 0
        self._told_gap = (0, 0)
        self._error: str | None = None
        self._closing = self._hurry = False
        self._file: int | None = None
        self._lock = self._locked()
        try:
            found = self._recovered()
        except BaseException:
            os.close(self._lock)
            raise
        self._queue.append(_now("boot", found))
        self._thread = threading.Thread(target=self._work, name="evidence", daemon=True)
        self._thread.start()

    @property
    def head(self) -> Head:
        """The last record that is on the disk."""
        return self._head

    @property
    def failing(self) -> bool:
        """Whether the last attempt to write has failed."""
        return self._error is not None

    @property
    def counts(self) -> Counts:
        """What was written and lost since it was opened."""
        with self._signal:
            return Counts(
                written=self._written,
                dropped=self._dropped,
                refused=self._refused,
                failures=self._failures,
                error=self._error,
                waiting=len(self._queue) + self._taken,
            )

    def append(
        self, content: dict[str, Any], *, kind: str = "decision", droppable: bool = False
    ) -> bool:
        """Hand over a record of plain values, and do not wait; False if there was no room for it.

        What is False is counted, and is told in the log as soon as there is room. Raises
        EvidenceError for what is not plain values or too long.
        """
        if kind != "decision" and not KIND.fullmatch(kind):
            raise EvidenceError(f"kind is {kind!r}; give a short word of small letters")
        text = content_text(content)
        with self._mutex:
            room = len(self._queue) + self._taken
            if self._closing or room >= (self._most // 2 if droppable else self._most):
                self._dropped += droppable
                self._refused += not droppable
                return False
            # Here, so that the order of the records is that of their times.
            self._queue.append(_Waiting(time.time(), time.monotonic(), kind, text))
            if len(self._queue) in (1, self._group):
                self._signal.notify_all()
        return True

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was handed over is on the disk; False if it took too long."""
        until = time.monotonic() + timeout
        with self._signal:
            self._hurry = True
            self._signal.notify_all()
            return self._signal.wait_for(
                lambda: not self._queue and not self._taken, until - time.monotonic()
            )

    def close(self, timeout: float = 10.0) -> None:
        """Write what waits and a last record, and let go; raises EvidenceError where that fails."""
        with self._signal:
            if self._closing:
                return
            self._queue.append(_now("close", {}))
            self._closing = self._hurry = True
            self._signal.notify_all()
        self._thread.join(timeout)
        left = self.counts
        if left.waiting:
            raise EvidenceError(
                f"evidence {self.folder}: {left.waiting} records could not be written "
                f"({left.error or 'the disk is too slow'}); free space there"
            )

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _locked(self) -> int:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise EvidenceError(
                f"evidence {self.folder} cannot be written: {error.strerror}; give another folder"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise BusyError(
                f"evidence {self.folder} has a writer already; give each guard a folder of its own"
            ) from None
        return lock

    def _recovered(self) -> dict[str, Any]:
        """Find the head, and cut off what a crash left behind it; returns what to tell of that."""
        found = segments(self.folder)
        # Whole logs take minutes to read: `verify` does that, here only the end is looked at.
        before, kind, torn = last_record(found[:-1]), "close", None
        self._head = Head(before.seq, before.hash) if before else beginning(found)
        for place in walk(found[-1], self._head) if found else ():
            if isinstance(place, Break):
                torn = place
                break
            if not place.begin:
                self._began = place.record.wall
            self._head, kind = Head(place.record.seq, place.record.hash), place.record.kind
        clean = kind == "close"
        told: dict[str, Any] = {"withstand": __version__, "pid": os.getpid(), "clean": clean}
        try:
            if torn is not None:
                told |= self._cut(torn)
            self._open(number_of(found[-1]) if found else 1)
        except OSError as error:
            raise EvidenceError(
                f"evidence {self.folder} cannot be written: {error.strerror}; free space there or "
                "give another folder"
            ) from None
        return told

    def _cut(self, torn: Break) -> dict[str, Any]:
        # What is cut off is kept: it may be all there is of a record that was tampered with.
        with torn.segment.open("rb+") as file:
            file.seek(torn.begin)
            rest = file.read()
            digest = hashlib.sha256(rest).hexdigest()
            kept = self.folder / f"{torn.segment.stem}-{self.boot[:8]}.torn"
            with open(os.open(kept, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as copy:
                copy.write(rest)
                copy.flush()
                os.fsync(copy.fileno())
            file.truncate(torn.begin)
            os.fsync(file.fileno())
        return {"clean": False, "torn_bytes": len(rest), "torn_sha256": digest}

    def _open(self, number: int) -> None:
        path = self.folder / name_of(number)
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._file, self._number, self._size = file, number, os.fstat(file).st_size
        sync_folder(self.folder)

    def _shut(self) -> None:
        # Forgotten first: the number of a closed file may be another one's a moment later.
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)

    def _work(self) -> None:
        """What the thread does; it alone closes what it writes to, however late it comes to it."""
        try:
            self._run()
        finally:
            self._shut()
            os.close(self._lock)

    def _run(self) -> None:
        while group := self._next():
            while True:
                try:
                    self._commit(group)
                    break
                except OSError as error:
                    with self._signal:
                        self._failures += 1
                        self._error = one_line(error.strerror or error)
                        if self._closing:
                            return
                    time.sleep(_RETRY)
            with self._signal:
                self._written += len(group)
                self._taken, self._error = 0, None
                self._signal.notify_all()
            if self._committed is not None:
                self._committed(self._head)

    def _next(self) -> list[_Waiting]:
        """The next group, when it is full or has waited long enough; empty at the end."""
        with self._signal:
            self._signal.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return []
            if not self._hurry:
                self._signal.wait_for(
                    lambda: len(self._queue) >= self._group or self._hurry, self._wait
                )
            group = [self._queue.popleft() for _ in range(min(self._group, len(self._queue)))]
            self._hurry = self._hurry and bool(self._queue)
            self._taken = len(group)
            return group

    def _commit(self, group: list[_Waiting]) -> None:
        """Write a group and wait until it is on the disk; after an OSError nothing of it is there.

        Pages that once failed to reach the disk may count as clean afterwards, so that a second
        attempt begins with cutting them off and a new segment.
        """
        if self._file is None:
            os.truncate(self.folder / name_of(self._number), self._size)
            self._open(self._number + bool(self._size))
        elif self._size >= self._segment_bytes or (
            self._size and not 0 <= group[0].wall - self._began < self._segment_seconds
        ):
            self._shut()
            self._open(self._number + 1)
        assert self._file is not None
        if not self._size:
            self._began = group[0].wall
        head, lines = self._head, []
        lost = (self._dropped, self._refused)
        if lost != self._told_gap:
            told = {"dropped": lost[0] - self._told_gap[0], "refused": lost[1] - self._told_gap[1]}
            # Of the time of the record before it, since others that wait are older than now.
            group = [*group, group[-1]._replace(kind="gap", content=content_text(told))]
        for one in group:
            line, head = encode(
                head, wall=one.wall, mono=one.mono, boot=self.boot, kind=one.kind,
                content=one.content,
            )  # fmt: skip
            lines.append(line)
        content = b"".join(lines)
        try:
            _write(self._file, content)
            os.fdatasync(self._file)
        except OSError:
            self._shut()
            raise
        self._head, self._told_gap = head, lost
        self._size += len(content)


def _now(kind: str, content: dict[str, Any]) -> _Waiting:
    return _Waiting(time.time(), time.monotonic(), kind, content_text(content))


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
