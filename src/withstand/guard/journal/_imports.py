"""What another logger saw, written down as such."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._message import Answer, UpstreamError
from .._routes import Form
from ..answers import read_answer
from ..wire import Inference, Limits, RequestError, read_rows, read_v2
from ._event import Event

Keep = Callable[[dict[str, Any], Inference | None], bool]
_LABELS = 64
_LOOK = 1.0


@dataclass(frozen=True, kw_only=True)
class ImportCounts:
    """What became of events: pairs and single ones that were written, and records that were lost.

    repeated: events that had come before and were not counted again. waiting: events in memory.
    """

    pairs: int
    alone: int
    repeated: int
    lost: int
    waiting: int


class _Half(NamedTuple):
    event: Event
    since: float


class Imports:
    """Joins requests with their answers, and hands each pair over as the content of a record.

    keep: takes a record of kind imported and what was asked, if it could be read. At most `most`
    events of at most `most_bytes` bytes in all wait for their other half, each for `patience`
    seconds or a second more; then it is written alone, whether or not another comes. After `close`
    nothing waits. For any number of threads.
    """

    def __init__(
        self,
        keep: Keep,
        *,
        most: int = 1000,
        most_bytes: int = 64 * 2**20,
        patience: float = 60.0,
        limits: Limits | None = None,
    ) -> None:
        self._keep, self._most, self._patience = keep, most, patience
        self._most_bytes, self._limits = most_bytes, limits or Limits()
        self._waiting: OrderedDict[tuple[str, str], _Half] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False
        self._pairs = self._alone = self._repeated = self._lost = 0

    @property
    def counts(self) -> ImportCounts:
        """What became of the events so far."""
        return ImportCounts(
            pairs=self._pairs, alone=self._alone, repeated=self._repeated, lost=self._lost,
            waiting=len(self._waiting),
        )  # fmt: skip

    def take(self, event: Event) -> None:
        """Take an event in."""
        name = (event.attributes.get("source", ""), event.id)
        with self._lock:
            other = self._waiting.get(name)
            if self._closed:
                ready = [_sorted(event)]
            elif other is None:
                ready = self._over(room=len(event.body))
                self._waiting[name] = _Half(event, time.monotonic())
                self._bytes += len(event.body)
                self._look_later()
            elif other.event.kind == event.kind:
                ready = []
                self._repeated += 1
            else:
                del self._waiting[name]
                self._bytes -= len(other.event.body)
                both = {one.kind: one for one in (other.event, event)}
                ready = [(both["request"], both["response"])]
        self._write(ready)

    def close(self) -> None:
        """Write what still waits, alone."""
        with self._lock:
            self._closed, timer = True, self._timer
            left = [_sorted(half.event) for half in self._waiting.values()]
            self._waiting.clear()
            self._bytes = 0
        if timer is not None:
            timer.cancel()
            # What it has taken out to write must be written before whoever keeps it closes.
            timer.join()
        self._write(left)

    def _look_later(self) -> None:
        """See to it that the oldest is written when its time is over; the lock is held."""
        if self._timer is not None or not self._waiting or not math.isfinite(self._patience):
            return
        due = next(iter(self._waiting.values())).since + self._patience - time.monotonic()
        # No more than one thread a second, however short the patience is.
        self._timer = threading.Timer(max(_LOOK, due), self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        with self._lock:
            ready = self._over()
        try:
            self._write(ready)
        finally:
            with self._lock:
                self._timer = None
                self._look_later()

    def _over(self, room: int | None = None) -> list[tuple[Event | None, Event | None]]:
        """Those that have waited too long, or must make room for another of so many bytes."""
        found: list[tuple[Event | None, Event | None]] = []
        now = time.monotonic()
        while self._waiting:
            half = next(iter(self._waiting.values()))
            full = room is not None and (
                len(self._waiting) >= self._most or self._bytes + room > self._most_bytes
            )
            if not full and now - half.since < self._patience:
                break
            self._waiting.popitem(last=False)
            self._bytes -= len(half.event.body)
            found.append(_sorted(half.event))
        return found

    def _write(self, found: list[tuple[Event | None, Event | None]]) -> None:
        for request, response in found:
            content, asked = self._read(request, response)
            kept = self._keep(content, asked)
            with self._lock:
                self._lost += not kept
                both = request is not None and response is not None
                self._pairs += kept and both
                self._alone += kept and not both

    def _read(
        self, request: Event | None, response: Event | None
    ) -> tuple[dict[str, Any], Inference | None]:
        event = request or response
        assert event is not None
        content: dict[str, Any] = {"id": event.id, "attributes": event.attributes}
        content["model"] = event.attributes.get("inferenceservicename", "")
        for name, one in (("request", request), ("response", response)):
            if one is not None:
                digest = hashlib.sha256(one.body).hexdigest()
                content[name] = {"bytes": len(one.body), "sha256": digest}
        asked = form = None
        if request is not None:
            try:
                form = _form(request.body)
                asked = _asked(request.body, form, self._limits)
                content["tensors"] = [
                    [one.name, one.datatype, one.values.shape] for one in asked.inputs
                ]
            except RequestError as error:
                content["unread"] = error.reason
        if response is not None and form is not None:
            headers = [(b"content-type", response.media.encode())]
            try:
                answered = read_answer(Answer(200, headers, response.body), form)
            except UpstreamError as error:
                content["unread"] = error.reason
            else:
                if answered.labels is not None:
                    content["labels"] = answered.labels[:_LABELS].tolist()
        return content, asked


def _sorted(event: Event) -> tuple[Event | None, Event | None]:
    return (event, None) if event.kind == "request" else (None, event)


def _form(body: bytes) -> Form:
    # The path is not among what is logged; the first key is enough, and what follows is checked.
    if b'"datatype"' in body:
        return "v2"
    return "v1" if b'"instances"' in body else "mlflow"


def _asked(body: bytes, form: Form, limits: Limits) -> Inference:
    return read_v2(body, None, limits) if form == "v2" else read_rows(body, form, limits)
