"""A thread that works on what waits, several requests at a time."""

from __future__ import annotations

import threading
import time
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False, slots=True)
class Waiting(Generic[T, R]):
    """Something to be worked on, until when, and who waits for it. size: counts in the queue."""

    what: T
    size: int
    until: float
    loop: AbstractEventLoop
    future: Future[R]


class Worker(Generic[T, R]):
    """Works through a bounded queue in a thread that ends with the process.

    work: results of what is given, in its order; it does not raise. most: the size that is worked
    on at one time; gather: seconds that a first one waits for others; queue: the size that may
    wait. begin: called in the thread before all.
    """

    def __init__(
        self, work: Callable[[list[T]], list[R]], *, most: int, gather: float, queue: int,
        begin: Callable[[], None],
    ) -> None:  # fmt: skip
        self._work, self._most, self._gather, self._queue = work, most, gather, queue
        self._begin = begin
        self._waiting: deque[Waiting[T, R]] = deque()
        self._size, self._closed = 0, False
        self._changed = threading.Condition()
        self._since: float | None = None
        self._thread = threading.Thread(target=self._run, name="withstand-detector", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is still there."""
        return self._thread.is_alive()

    def busy_for(self) -> float:
        """Seconds since the work under way was begun, 0 where there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def put(self, one: Waiting[T, R]) -> bool:
        """Let something wait; False where too much waits already. Alone, anything may."""
        with self._changed:
            if self._waiting and self._size + one.size > self._queue:
                return False
            before = self._size
            self._waiting.append(one)
            self._size += one.size
            # Woken for the first, and when there is enough, not for each between.
            if not before or before < self._most <= self._size:
                self._changed.notify()
        return True

    def close(self) -> None:
        """End when the work under way is done; nobody is waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self, seconds: float) -> None:
        """Wait for the end, but not longer."""
        self._thread.join(seconds)

    def _run(self) -> None:
        self._begin()
        while not self._closed:
            batch = self._next()
            if batch:
                self._since = time.monotonic()
                found = self._work([one.what for one in batch])
                self._since = None
                for one, result in zip(batch, found, strict=True):
                    # Whose loop is closed does not wait any more.
                    with suppress(RuntimeError):
                        one.loop.call_soon_threadsafe(settle, one.future, result)

    def _next(self) -> list[Waiting[T, R]]:
        """What is worked on next; what nobody waits for any more is left out."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._gather:
                self._changed.wait_for(
                    lambda: self._size >= self._most or self._closed, self._gather
                )
            batch: list[Waiting[T, R]] = []
            size, now = 0, time.monotonic()
            while self._waiting and (not batch or size + self._waiting[0].size <= self._most):
                one = self._waiting.popleft()
                self._size -= one.size
                if one.until > now:
                    batch.append(one)
                    size += one.size
            return batch


def settle(future: Future[R], result: R) -> None:
    """Give a result to whoever still waits for it."""
    if not future.done():
        future.set_result(result)
