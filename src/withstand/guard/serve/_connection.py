"""A client's connection: HTTP/1.1, read strictly and answered in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import httptools

from .._intake import Upload, busy, ended, too_slow
from .._message import Answer, Headers, Request, refusal
from ._door import Door
from ._head import LONG, NOT_HTTP, SLOW, HeadError, answer_head, body_length

_log = logging.getLogger("withstand.guard")
_PIPELINED = 16
_SMALL = 512
_IDLE, _HEAD, _BODY = range(3)


class _Asked:
    """A request that comes, waits for its turn, or is answered.

    whole: all of it is there. long: its body is longer than may be. done: its answer is decided.
    upload: what the intake holds for its body while that comes; needed: what it counts from then
    on, None before. last: no other follows.
    """

    __slots__ = (
        "done", "expects", "headers", "last", "length", "long", "method", "needed", "parts", "path",
        "size", "task", "upload", "whole",
    )  # fmt: skip

    def __init__(
        self, method: str, path: str, headers: Headers, length: int | None, last: bool
    ) -> None:
        self.method, self.path, self.headers, self.length = method, path, headers, length
        self.last, self.expects = last, False
        self.parts: list[bytes] = []
        self.size = 0
        self.whole = self.done = self.long = False
        self.upload: Upload | None = None
        self.needed: int | None = None
        self.task: asyncio.Task[None] | None = None


class Connection(asyncio.Protocol):
    """Refuses heads that servers read differently, and ends connections that take too long.

    One request is answered at a time; of those that come before their turn a few wait, and no more
    is read meanwhile. `sweep` is called for each connection about once a second.
    """

    def __init__(self, door: Door) -> None:
        self._door, self._loop = door, asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        # What follows a last request is read, and left alone: else that one had no answer.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._phase, self._since = _HEAD, self._loop.time()
        # Bytes of the head at most, and of those what may belong to requests before it; of a body
        # those that have come since its last part.
        self._head = self._before = self._piece = 0
        self._why = NOT_HTTP
        self._blocked = self._closing = 0.0
        self._url = b""
        self._headers: Headers = []
        self._expects = False
        self._coming: _Asked | None = None
        self._turn: _Asked | None = None
        self._waiting: deque[_Asked] = deque()
        self._held: tuple[_Asked, Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        door = self._door
        door.connections.add(self)
        door.empty.clear()
        if len(door.connections) > door.most and not door.make_room(self):
            self._refuse(HeadError(503, "connections", "try again later"))

    def connection_lost(self, error: Exception | None) -> None:
        door, turn = self._door, self._turn
        door.connections.discard(self)
        if not door.connections:
            door.empty.set()
        self._waiting.clear()
        self._held = None
        if turn is not None and not turn.done and not turn.whole and self._leave(turn):
            door.metrics.count("refused", "gone")

    def data_received(self, data: bytes) -> None:
        self._piece = len(data)
        self._head += self._piece
        if self._phase == _IDLE:
            self._before = 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # Its own errors, and what the callbacks below raise.
            self._refuse(self._why)
            return
        # What the parser holds of a header or trailer without an end is in none of its callbacks.
        if self._phase != _IDLE and self._head - self._before > self._door.limits.headers:
            self._refuse(LONG)
            return
        turn = self._turn
        if turn is not None and not turn.whole:
            self._expect(turn)

    def eof_received(self) -> None:
        """Whoever sends no more reads no more: the connection ends."""

    def on_message_begin(self) -> None:
        self._url, self._headers, self._expects = b"", [], False
        if self._phase == _IDLE:
            self._phase, self._since, self._head = _HEAD, self._loop.time(), self._piece

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase == _BODY:
            # A trailer: as a header it would be one that nobody has looked at.
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._phase, self._since = _BODY, self._loop.time()
        self._coming = None
        if self._transport.is_closing():
            return
        try:
            asked = self._asked()
        except HeadError as why:
            self._why = why
            raise
        self._coming = asked
        self._head = self._before = 0
        if self._turn is None:
            self._take(asked)
        else:
            self._waiting.append(asked)
            self._transport.pause_reading()

    def on_body(self, part: bytes) -> None:
        asked, self._head = self._coming, 0
        if asked is None or asked.done or asked.long:
            return
        asked.size += len(part)
        if asked.size > self._door.intake.body:
            asked.long = True
            asked.parts.clear()
            if asked is self._turn:
                self._refuse_long(asked)
        elif len(part) < _SMALL and asked.parts and len(asked.parts[-1]) < _SMALL:
            # Each by itself would take up many times its size.
            asked.parts[-1] += part
        else:
            asked.parts.append(part)

    def on_message_complete(self) -> None:
        self._phase, asked, self._before = _IDLE, self._coming, self._piece
        if asked is None:
            return
        asked.whole = True
        if asked is self._turn:
            if not asked.done:
                self._start(asked)
            elif self._held is None:
                self._next()

    def _asked(self) -> _Asked:
        """The request whose head has come; raises HeadError."""
        parser, headers = self._parser, self._headers
        # With the beginning of the body, mostly so little that there is no need to add up.
        size = self._head
        if size > self._door.limits.headers:
            size = len(self._url) + sum([len(name) + len(value) for name, value in headers])
        if size > self._door.limits.headers:
            raise LONG
        if parser.should_upgrade():
            # The parser drops the body of such a request.
            raise HeadError(400, "upgrade", "HTTP/1.1 without Upgrade, please")
        if len(self._waiting) >= _PIPELINED:
            raise HeadError(400, "pipelined", "too many requests before an answer")
        version = parser.get_http_version()
        length = body_length(headers, version)
        url = self._url
        if not url.startswith(b"/"):
            found = httptools.parse_url(url)
            url = (found.path or b"") + (b"?" + found.query if found.query else b"")
        last = version == "1.0" or not parser.should_keep_alive()
        asked = _Asked(
            parser.get_method().decode("ascii"), url.decode("latin-1"), headers, length, last
        )
        asked.expects = self._expects and version == "1.1" and length != 0
        return asked

    def _take(self, asked: _Asked) -> None:
        """Take the request whose turn it is, all of which may not have come yet."""
        self._turn = asked
        if asked.long or (asked.length is not None and asked.length > self._door.intake.body):
            self._refuse_long(asked)
        elif asked.whole:
            self._start(asked)

    def _expect(self, asked: _Asked) -> None:
        """Hold room for what is still to come of a request whose turn it is, if it may ask."""
        if asked.done or asked.upload is not None or self._transport.is_closing():
            return
        door, intake = self._door, self._door.intake
        owner = door.owner(Request(asked.method, asked.path, asked.headers))
        if not isinstance(owner, str):
            self._say(asked, owner)
            return
        needed = intake.needed(asked.length)
        asked.upload = intake.wait(owner, needed, self._loop.time(), self._give_way)
        if asked.upload is None:
            door.metrics.count("refused", "busy")
            self._say(asked, busy())
        elif asked.expects:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _give_way(self) -> None:
        """Wait no longer for a body, since its room is needed."""
        assert self._turn is not None
        self._door.metrics.count("refused", "gave_way")
        self._say(self._turn, ended())

    def _start(self, asked: _Asked) -> None:
        self._leave(asked)
        if not self._door.intake.enter(asked.size):
            self._door.metrics.count("refused", "busy")
            self._say(asked, busy())
            return
        asked.needed = asked.size
        asked.task = self._loop.create_task(self._answer(asked))
        self._door.tasks.add(asked.task)

    async def _answer(self, asked: _Asked) -> None:
        door, parts = self._door, asked.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        # A connection that is kept must not keep its last body.
        parts.clear()
        try:
            answer = await door.answer(Request(asked.method, asked.path, asked.headers, body))
        except asyncio.CancelledError:
            door.metrics.count("refused", "ended")
            answer = ended()
        except Exception:
            _log.exception("a request could not be answered")
            door.metrics.count("refused", "defect")
            answer = refusal(500, "this request could not be answered")
        assert asked.task is not None
        door.tasks.discard(asked.task)
        self._say(asked, answer)

    def _leave(self, asked: _Asked) -> bool:
        """Give back what the intake counts for a request; False where it counts nothing."""
        intake, upload, needed = self._door.intake, asked.upload, asked.needed
        if needed is not None:
            asked.needed = None
            intake.leave(needed)
            return True
        if upload is None:
            return False
        asked.upload = None
        return intake.drop(upload)

    def _say(self, asked: _Asked, answer: Answer) -> None:
        """Answer the request whose turn it is; where the client does not read, when it does."""
        self._leave(asked)
        asked.done = True
        transport = self._transport
        if transport.is_closing():
            return
        if self._blocked:
            self._held = (asked, answer)
            return
        last = asked.last or self._door.closing or (b"connection", b"close") in answer.headers
        try:
            head = answer_head(answer, self._door.date, last=last)
        except ValueError:
            _log.error("an answer has a header or a status that is none")
            self._door.metrics.count("refused", "defect")
            answer = refusal(500, "this request could not be answered")
            head = answer_head(answer, self._door.date, last=last)
        bare = asked.method == "HEAD" or answer.status == 204
        transport.write(head if bare else head + answer.body)
        if last:
            transport.close()
        elif asked.whole:
            self._next()

    def _next(self) -> None:
        """Whoever waits has its turn; where nobody does, more is read."""
        self._turn, self._since = None, self._loop.time()
        if self._waiting:
            turn = self._waiting.popleft()
            self._take(turn)
            if not turn.whole:
                self._expect(turn)
        elif self._door.closing:
            self._transport.close()
        if not self._waiting and not self._transport.is_closing():
            # Also for the rest of the one whose turn it is now.
            self._transport.resume_reading()

    def _refuse_long(self, asked: _Asked) -> None:
        self._door.metrics.count("refused", "too_large")
        self._say(asked, self._door.intake.too_large())

    def _refuse(self, why: HeadError) -> None:
        if self._transport.is_closing():
            return
        self._door.metrics.count("refused", why.reason)
        turn = self._turn
        if turn is None or not (turn.whole or turn.done):
            if turn is not None:
                self._leave(turn)
                turn.done = True
            answer = refusal(why.status, why.text)
            self._transport.write(answer_head(answer, self._door.date, last=True) + answer.body)
        # Else it would be taken for the answer to the request before.
        self._transport.close()

    def pause_writing(self) -> None:
        self._blocked = self._loop.time()

    def resume_writing(self) -> None:
        self._blocked = 0.0
        held, self._held = self._held, None
        if held is not None:
            self._say(*held)

    def end(self) -> None:
        """Take no more requests; the one under way is answered."""
        if self._turn is None:
            self._transport.close()

    def give_up(self) -> None:
        """Wait no longer for what is still to come of a request."""
        turn = self._turn
        if turn is not None and not turn.whole and not turn.done:
            self._door.metrics.count("refused", "ended")
            self._say(turn, ended())

    def waited(self) -> tuple[int, float] | None:
        """In which order it gives way to others: who has not asked yet or does not read, who asks
        nothing more, whose body comes; and since when. None while it is being answered."""
        turn = self._turn
        if turn is not None and turn.whole and not turn.done:
            return None
        if self._closing or self._blocked:
            return 0, self._closing or self._blocked
        if turn is None:
            return int(self._phase == _IDLE), self._since
        return 0 if turn.done else 2, self._since

    def give_way(self) -> None:
        """End now, for another that has more to ask."""
        turn = self._turn
        if turn is not None:
            self._leave(turn)
            turn.done = True
        self._transport.abort()

    def abort(self) -> None:
        """End at once, whatever is under way."""
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """End it where the client has taken too long to send or to read, or sends no more."""
        limits, turn = self._door.limits, self._turn
        if self._transport.is_closing():
            self._closing = self._closing or now
        if self._waiting or (turn is not None and self._phase == _HEAD):
            # That nothing comes is our doing, or it is too early to mind.
            self._since = now
        since = self._closing or self._blocked
        waited = now - self._since
        if since:
            if now - since > limits.read_seconds:
                self._door.metrics.count("refused", "unread")
                self._transport.abort()
        elif self._phase == _HEAD and waited > limits.head_seconds:
            self._refuse(SLOW)
        elif self._phase == _BODY and waited > limits.body_seconds:
            self._door.metrics.count("refused", "slow_body")
            if turn is None or turn.done:
                # It has been answered before, and goes on sending all the same.
                self._transport.abort()
            else:
                self._say(turn, too_slow())
        elif self._phase == _IDLE and turn is None and waited > limits.idle_seconds:
            self._transport.close()
