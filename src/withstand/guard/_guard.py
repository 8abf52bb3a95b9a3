"""What becomes of a request, from its arrival to its record."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ._correlation import correlated
from ._inspection import Inspection
from ._journal import Journal, NoJournal
from ._ladder import ACTIONS
from ._lines import Line
from ._message import Answer, Request, Upstream, UpstreamError, refusal
from ._metrics import Metrics
from ._mitigations import Mitigations
from ._record import record_of
from ._routes import Route, find_route
from ._sensor import Call
from .access import EXPERIMENT, Access, Experiments, Key, Mac, within
from .answers import Answered, coarsened, plain_error, read_answer
from .canary import CANARY, STABLE
from .wire import Inference, RequestError, read_rows, read_v2, write_rows, write_v2

_log = logging.getLogger("withstand.guard")
_PASSED = frozenset((b"traceparent", b"tracestate", b"x-request-id"))
_AS_IT_IS = _PASSED | {b"inference-header-content-length", b"content-type", b"content-encoding"}
_LENGTH = b"inference-header-content-length"
_ARM = b"x-withstand-arm"
_BESIDE = 64


class Guard:
    """Stands in front of models: `answer` is all that a server, middleware or function calls.

    lines: by the name of the model; the one named "" is for all others, and without it there are no
    others. secret: the key of fingerprints, so that nobody can try inputs out against the evidence;
    a random one if not given, and then equal inputs are told only until the guard ends.
    mitigations: actions that were ordered. experiments: reads the passes of permitted attacks.
    """

    def __init__(
        self,
        lines: Mapping[str, Line],
        *,
        access: Access | None = None,
        journal: Journal | None = None,
        metrics: Metrics | None = None,
        secret: bytes | None = None,
        mitigations: Mitigations | None = None,
        experiments: Experiments | None = None,
    ) -> None:
        self.lines = dict(lines)
        self.access = access or Access(None)
        self.journal: Journal = journal or NoJournal()
        self.metrics = metrics or Metrics()
        self.mitigations = mitigations or Mitigations()
        self.killed = False
        self._experiments = experiments
        self._mac = Mac(secret or secrets.token_bytes(32))
        self._inspection = Inspection(self.metrics, self._mac)
        start = secrets.token_hex(6)
        self._ids = (f"{start}-{n}" for n in itertools.count(1))
        self._beside: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request) -> Answer:
        """The answer to a request; whatever happens, there is one, and it is counted."""
        model = tenant = ""
        try:
            route, line = self.way(request)
            model = route.model if route.model in self.lines else ""
            if route.kind == "health":
                answer = plain_error(await line.upstream.ask("GET", route.path, []))
            else:
                access = self.access
                key, headers = access.admit(request)
                tenant = key.tenant
                access.begin(key)
                try:
                    if route.kind == "metadata":
                        answer = plain_error(await line.upstream.ask("GET", route.path, []))
                    else:
                        answer = await self._infer(request, route, line, key)
                finally:
                    access.end(key)
                answer = Answer(answer.status, [*answer.headers, *headers], answer.body)
        except RequestError as error:
            self.metrics.count("refused", error.reason)
            answer = refusal(error.status, str(error), error.headers)
        except UpstreamError as error:
            self.metrics.count("refused", error.reason)
            answer = refusal(error.status, "the model server gave no answer")
        except Exception:
            _log.exception("a request could not be answered")
            self.metrics.count("refused", "defect")
            answer = refusal(500, "this request could not be answered")
        self.metrics.count("requests", model, tenant, str(answer.status))
        return answer

    def owner(self, head: Request) -> Answer | str:
        """The id of the key that asks, by the head of a request with a body that is to come; or the
        answer, where it is refused whatever its body is."""
        model = owner = ""
        try:
            route, _ = self.way(head)
            model = route.model if route.model in self.lines else ""
            if route.kind != "health":
                owner = self.access.whose(head.headers).id
            if route.kind != "infer":
                raise RequestError(413, "too_large", "there is no body here")
        except RequestError as error:
            self.metrics.count("refused", error.reason)
            self.metrics.count("requests", model, "", str(error.status))
            return refusal(error.status, str(error), error.headers)
        return owner

    async def settled(self) -> None:
        """Wait until what is being observed beside the requests has been looked at."""
        await asyncio.gather(*self._beside)

    def way(self, request: Request) -> tuple[Route, Line]:
        """Where a request goes; raises RequestError where it goes nowhere.

        A path for inference that names no model is the only model's, where there is but one.
        """
        route = find_route(request.method, request.path)
        line = None if route is None else self.lines.get(route.model, self.lines.get(""))
        if route is not None and line is None and not route.model and self.lines:
            name, first = next(iter(self.lines.items()))
            if route.kind != "infer":
                # The server's own health and metadata are those of the first model's.
                line = first
            elif len(self.lines) == 1:
                route, line = replace(route, model=name), first
            else:
                text = f"{route.path} names no model; ask /v2/models/NAME/infer"
                raise RequestError(404, "route", text)
        if route is None or line is None:
            raise RequestError(404, "route", "there is nothing here")
        return route, line

    def close(self) -> None:
        """Let go of what the lines and the journal hold open."""
        for line in self.lines.values():
            for sensor in line.sensors:
                sensor.close()
            for upstream in (line.upstream, line.reroute, line.canary):
                if upstream is not None:
                    upstream.close()
        self.journal.close()

    async def _infer(self, request: Request, route: Route, line: Line, key: Key) -> Answer:
        started = time.perf_counter()
        if self.killed or line.mode == "observe":
            return await self._observe(request, route, line, key, started)
        call, paused, seconds, answer = None, 0.0, 0.0, None
        label: int | None = None
        confidence: float | None = None
        more = self._experiment(request, key) | correlated(request.headers)
        forced = more.pop("arm", "")
        failure: RequestError | UpstreamError | None = None
        steps: tuple[str, ...] = ()
        done: set[str] = set()
        try:
            standing = line.standing.of(key.id)
            steps = self._steps(line, standing, key, route)
            if "block" in steps:
                done.add("block")
                raise _refused()
            call = Call(route=route, key=key, started=started, asked=_read(request, route, line))
            call.standing = standing
            await self._inspection.look(call, line)
            call.forced, call.arm = bool(forced), _arm(line, key, call.fingerprint, forced)
            steps = self._steps(line, call.level, key, route)
            answered, paused, seconds = await self._ask(request, call, line, steps, done)
            more["answered"] = answered.highest()
            if line.canary is not None:
                label, confidence = answered.first()
            self._inspection.learn(call, line, answered)
            steps = self._steps(line, call.level, key, route)
            answer = _shown(answered, line, steps, done)
            if call.forced:
                answer = answer._replace(headers=[*answer.headers, (_ARM, call.arm.encode())])
        except (RequestError, UpstreamError) as error:
            failure = error
            if isinstance(error, RequestError) and error.reason == "policy" and not seconds:
                # As long as an answer takes, so that the time does not tell which it was.
                await asyncio.sleep(line.pace.usual())
        total = time.perf_counter() - started
        self.metrics.time("added_latency", max(0.0, total - seconds - paused))
        times = (total, seconds)
        if call is not None and call.arm and line.canary is not None and not more.get("experiment"):
            flagged = any(signal.flagged for signal in call.signals)
            line.canary.saw(
                call.arm, status=call.status, seconds=seconds, flagged=flagged, label=label,
                confidence=confidence,
            )  # fmt: skip
        kept = self._note(call, route, line, key, answer, failure, steps, done, times, more)
        if failure is not None:
            raise failure
        assert answer is not None
        if not kept and self.journal.required and line.mode == "enforce":
            raise RequestError(503, "evidence", "try again later", [(b"retry-after", b"1")])
        return answer

    def _steps(self, line: Line, level: int, key: Key, route: Route) -> tuple[str, ...]:
        """The actions that are taken: those of a level of the ladder, and those ordered."""
        if not level and not self.mitigations.held:
            return ()
        steps = line.standing.ladder.steps(level) if level and line.mode == "enforce" else ()
        ordered = self.mitigations.of(key.id, route.model if route.model in self.lines else "")
        if not ordered:
            return steps
        return tuple(action for action in ACTIONS if action in steps or action in ordered)

    def _experiment(self, request: Request, key: Key) -> dict[str, Any]:
        """What a record tells of the permitted attack that a request belongs to."""
        if self._experiments is None or EXPERIMENT not in dict(request.headers):
            return {}
        found = self._experiments.read(request.headers, key.id)
        if found is None:
            return {}
        told = {"experiment": found[0].id, "probe": found[1]}
        return {**told, "arm": found[0].arm} if found[0].arm else told

    async def _ask(
        self, request: Request, call: Call, line: Line, steps: tuple[str, ...], done: set[str]
    ) -> tuple[Answered, float, float]:
        """The model's answer, the seconds of deliberate delay, and those that the model took."""
        _pass(steps, done)
        if "throttle" in steps and line.throttled is not None:
            done.add("throttle")
            within(line.throttled, call.key)
        paused = line.delay * random.uniform(0.5, 1.5) if "delay" in steps else 0.0
        if paused:
            done.add("delay")
            await asyncio.sleep(paused)
        upstream: Upstream = line.upstream
        line.share.count()
        if "reroute" in steps and line.reroute is not None and line.share.take():
            done.add("reroute")
            upstream, call.arm = line.reroute, ""
        elif call.arm == CANARY and line.canary is not None:
            # Asked for only now: it may have been rolled back since the request came.
            if line.canary.free(call.forced):
                upstream = line.canary
            else:
                call.arm = STABLE
        form = call.route.form
        body, told = write_v2(call.asked, raw=line.raw) if form == "v2" else write_rows(call.asked)
        headers = []
        for name, value in told.items():
            headers.append((name.encode(), value.encode()))
        for pair in request.headers:
            if pair[0] in _PASSED:
                headers.append(pair)
        if "tag" in steps:
            done.add("tag")
            headers.append((b"x-withstand-flagged", b"1"))
        before, call.status = time.perf_counter(), 0
        answer = await upstream.ask("POST", call.route.path, headers, body)
        seconds = time.perf_counter() - before
        line.pace.saw(seconds)
        self.metrics.time("upstream_latency", seconds)
        answered = read_answer(answer, form)
        call.status = answer.status
        return answered, paused, seconds

    async def _observe(
        self, request: Request, route: Route, line: Line, key: Key, started: float
    ) -> Answer:
        """Pass on what was sent as it is, and look at it beside, if there is time."""
        headers = [pair for pair in request.headers if pair[0] in _AS_IT_IS]
        more = self._experiment(request, key)
        forced = more.pop("arm", "")
        digest = "" if line.canary is None else self._mac(request.body)
        arm = _arm(line, key, digest, forced)
        upstream: Upstream = line.upstream
        if arm == CANARY and line.canary is not None:
            if line.canary.free(bool(forced)):
                upstream = line.canary
            else:
                arm = STABLE
        status, seconds = 0, 0.0
        try:
            answer = await upstream.ask("POST", route.path, headers, request.body)
            status, seconds = answer.status, time.perf_counter() - started
        finally:
            if line.canary is not None and not more:
                line.canary.saw(arm, status=status, seconds=seconds, flagged=None)
        more |= correlated(request.headers)
        if forced:
            answer = answer._replace(headers=[*answer.headers, (_ARM, arm.encode())])
        if self.killed:
            self.metrics.count("uninspected")
            return answer
        if len(self._beside) >= _BESIDE:
            self.metrics.count("uninspected")
            return answer
        task = asyncio.create_task(
            self._inspect(request, route, line, key, answer, (seconds, seconds), arm, more)
        )
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return answer

    async def _inspect(
        self, request: Request, route: Route, line: Line, key: Key, answer: Answer,
        times: tuple[float, float], arm: str, more: dict[str, Any],
    ) -> None:  # fmt: skip
        call, failure = None, None
        try:
            asked = _read(request, route, line)
            call = Call(route=route, key=key, started=time.perf_counter(), asked=asked, arm=arm)
            call.standing = line.standing.of(key.id)
            await self._inspection.look(call, line)
            answered = read_answer(answer, route.form)
            more["answered"] = answered.highest()
            self._inspection.learn(call, line, answered)
        except (RequestError, UpstreamError) as error:
            failure = error
        except Exception:
            _log.exception("an observed request could not be looked at")
            self.metrics.count("refused", "defect")
        self._note(call, route, line, key, answer, failure, (), set(), times, more)

    def _note(
        self, call: Call | None, route: Route, line: Line, key: Key, answer: Answer | None,
        failure: RequestError | UpstreamError | None, steps: tuple[str, ...], done: set[str],
        times: tuple[float, float], more: Mapping[str, Any],
    ) -> bool:  # fmt: skip
        taken = tuple(action for action in ACTIONS if action in done) if done else ()
        content = record_of(
            next(self._ids), call, route=route, line=line, key=key, answer=answer,
            failure=failure, steps=steps, done=taken, times=times, more=more,
        )  # fmt: skip
        self.metrics.count(
            "decisions",
            route.model if route.model in self.lines else "",
            content["decision"],
            taken[-1] if taken else "none",
        )
        flagged = content["decision"] != "pass"
        kept = self.journal.note(content, flagged=flagged, asked=None if not call else call.asked)
        if not kept:
            self.metrics.count("evidence_lost")
        return kept and not self.journal.failing


def _read(request: Request, route: Route, line: Line) -> Inference:
    lengths, told = [], dict(request.headers)
    if b"content-encoding" in told:
        raise RequestError(415, "encoding", "send the body without Content-Encoding")
    if _LENGTH in told:
        lengths = [value for name, value in request.headers if name == _LENGTH]
    if len(lengths) > 1 or (lengths and route.form != "v2"):
        raise RequestError(400, "header_length", "one Inference-Header-Content-Length, v2 only")
    if route.form == "v2":
        return read_v2(request.body, lengths[0].decode("latin-1") if lengths else None, line.limits)
    return read_rows(request.body, route.form, line.limits)


def _arm(line: Line, key: Key, digest: str, forced: str) -> str:
    """The arm of a request; empty where there is no canary, so that none can be asked for."""
    if line.canary is not None:
        return line.canary.arm(key.id, digest, forced)
    if forced:
        raise RequestError(409, "arm", "there is no canary here")
    return ""


def _shown(answered: Answered, line: Line, steps: tuple[str, ...], done: set[str]) -> Answer:
    # What was learned from the answer may still keep it back.
    _pass(steps, done)
    if "coarsen" in steps and answered.outputs:
        done.add("coarsen")
        return coarsened(answered, line.digits, top=line.top)
    return answered.answer


def _pass(steps: tuple[str, ...], done: set[str]) -> None:
    """Raises RequestError where the actions refuse the request."""
    if "block" in steps or "quarantine" in steps:
        done.update(action for action in ("quarantine", "block") if action in steps)
        raise _refused()


def _refused() -> RequestError:
    return RequestError(403, "policy", "this request was refused")
