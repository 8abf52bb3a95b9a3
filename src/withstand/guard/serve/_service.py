"""A guard in service: what it is made of now, and what may become of that while it serves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder

from ..._errors import ConfigError, WithstandError, listed, one_line
from ..._version import __version__
from ...config import GuardConfig, load_guard, load_table
from ...data import load_histograms, table_of
from .._guard import Guard
from .._intake import Intake
from .._kept import keep
from .._lines import Line
from .._message import Answer, Request, Upstream, UpstreamError
from .._metrics import Metrics
from .._mitigations import Mitigation
from ..access import Access, Secrets
from ..journal import EventSink, EvidenceJournal, Imports
from ..plan import Parts, Plan
from ..wire import Inference
from ._canaries import Canaries
from ._drifts import DriftFigures, drift_told
from ._figures import EvidenceFigures
from ._learning import Learning

_log = logging.getLogger("withstand.guard")
_FIXED = ("listen", "admin", "analysis", "secrets", "state")
_ASKING = 2.0


class Service:
    """The guard that a file configures, and the parts that live as long as the process.

    Raises WithstandError where the file or what it names is broken. To be used from one event loop.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = Metrics()
        self.config, policy = _read(path)
        self.secrets = Secrets(path.parent / self.config.secrets)
        self.token = self.secrets.get("token").hex()
        self.analysis_token = self.secrets.get("analysis").hex()
        self._learning = Learning()
        self._switch = path.parent / self.config.state / "switch.json"
        killed = _killed(self._switch)
        self._plan, self.guard = self._made(self.config, policy)
        self.guard.killed = killed
        self.intake = Intake()
        self._limit()
        self.started, self.draining, self.lag = time.time(), False, 0.0
        self._wrong_keys = ""
        self._reloading = asyncio.Lock()
        self._retired: list[Parts] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: tuple[float, list[str]] = (-_ASKING, [])
        self.events = EventSink(Imports(self._bring))
        self.canaries = Canaries(lambda: self.guard, self._tell)
        self._begin_canaries()
        self.metrics.gauges |= {
            "in_flight": lambda: self.intake.now,
            "killed": lambda: self.guard.killed,
            "mitigations": lambda: len(self.guard.mitigations.all()),
            "loop_lag_seconds": lambda: self.lag,
            "unchecked": lambda: sum(line.unchecked for line in self.guard.lines.values()),
        }
        self.metrics.registry.register(
            EvidenceFigures(lambda: self.guard.journal, lambda: self.events.counts)
        )
        self.metrics.registry.register(self.canaries)
        self.metrics.registry.register(DriftFigures(lambda: self.guard.lines))
        ProcessCollector(registry=self.metrics.registry)

    def answer(self, request: Request) -> Coroutine[Any, Any, Answer]:
        """The answer of the guard that answers at present."""
        return self.guard.answer(request)

    def owner(self, head: Request) -> Answer | str:
        """Whose a request is, by its head, or what the guard answers whatever its body is."""
        return self.guard.owner(head)

    def start(self) -> None:
        """Begin to ask the model servers what they are."""
        follow = self._learning.follow(self._plan, self.guard.lines)
        self._following = self._beside(follow)

    async def reload(self) -> None:
        """Take the file as it is now; raises WithstandError, and all stays as it was.

        All of the new guard is made before anything of the old one ends. Requests under way are
        answered by the old one.
        """
        async with self._reloading:
            try:
                old = self.config
                config, policy = await asyncio.to_thread(_read, self.path)
                self._check(old, config)
                plan, guard = await asyncio.to_thread(self._made, config, policy, self._plan.parts)
            except WithstandError as error:
                self._told("refused", {"error": one_line(error, 500)})
                raise
            except Exception as error:
                _log.exception("a new configuration could not be tried")
                self._told("refused", {"error": type(error).__name__})
                raise ConfigError(
                    f"{self.path}: {type(error).__name__}; see the guard's log"
                ) from None
            guard.killed = self.guard.killed
            self.config, self._plan, self.guard = config, plan, guard
            self._limit()
            self._begin_canaries()
            self._asked = (-_ASKING, [])
            self._told("taken", {"policy": policy})
            gone = plan.parts.settle()
            self._retired.append(gone)
            self._beside(self._retire(gone))
            self._following.cancel()
            self.start()

    def switch(self, killed: bool, who: str, why: str) -> bool:
        """Turn all inspection off or on, and write down who did so; False where that failed.

        It holds over a restart, unless it could not be kept.
        """
        told = {"killed": killed, "who": who, "why": why}
        self.guard.killed = killed
        _log.warning("inspection is %s, by %r: %r", "off" if killed else "on", who, why)
        kept = self._tell("switch", told)
        try:
            keep(self._switch, json.dumps(told))
        except ConfigError as error:
            # It is for the day on which things fail, a disk too.
            _log.error("%s", error)
            return False
        return kept

    def mitigations(self) -> list[Mitigation]:
        """The actions that were ordered and hold."""
        return self.guard.mitigations.all()

    def mitigate(self, new: Mitigation) -> bool:
        """Take an action on a client or on all, and write it down; False if it holds already.

        Raises ConfigError where nobody has its key, or the line it is for cannot take it.
        """
        lines, keys = self.guard.lines, self.guard.access.keys
        if new.key and keys is not None and all(key.id != new.key for key in keys):
            raise ConfigError(
                f"key {one_line(new.key, 80)!r} is nobody's; give a whole id from `withstand guard "
                "key list`"
            )
        if new.model and new.model not in lines:
            raise ConfigError(f"model {new.model!r} is not guarded; it is one of {listed(lines)}")
        for name, line in lines.items():
            if new.model in ("", name):
                _can(new.action, name, line)
        if not self.guard.mitigations.put(new):
            return False
        _log.warning("%s is ordered by %r: %r", new.action, new.who, new.why)
        self._tell("mitigation", asdict(new))
        return True

    def lift(self, identity: str, who: str, why: str) -> bool:
        """End an ordered action; False where there is none."""
        if not self.guard.mitigations.lift(identity):
            return False
        _log.warning("mitigation %s is lifted by %r: %r", identity, who, why)
        self._tell("lifted", {"id": identity, "who": who, "why": why})
        return True

    async def ready(self) -> list[str]:
        """Why it cannot serve: that it ends, has no model server, or must not without evidence."""
        since, why = self._asked
        now = asyncio.get_running_loop().time()
        if now - since >= _ASKING / 2:
            why = await self._silent()
            self._asked = (now, why)
        journal = self.guard.journal
        if journal.required and journal.failing:
            why = [*why, "evidence cannot be written"]
        if lost := self._lost_keys():
            why = [*why, lost]
        return ["it is ending", *why] if self.draining else why

    def status(self) -> dict[str, Any]:
        """How it is, without anything secret."""
        guard = self.guard
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.time() - self.started, 1),
            "policy": self._plan.policy,
            "killed": guard.killed,
            "draining": self.draining,
            "evidence": "none" if self.config.evidence is None else
            "failing" if guard.journal.failing else "kept",
            "models": {
                name or "*": {
                    "mode": line.mode,
                    "binary": line.raw,
                    "rules": [rule.name for rule in line.rules],
                    "sensors": [sensor.name for sensor in line.sensors],
                    **drift_told(line),
                }
                for name, line in guard.lines.items()
            },
        }  # fmt: skip

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All figures in the form that is asked for, Prometheus or OpenMetrics."""
        encode, kind = choose_encoder(accept)
        return encode(self.metrics.registry), kind

    def look_after(self) -> None:
        """Let canaries move, take new keys and leave out revoked ones: about once a second."""
        self.canaries.consider()
        try:
            keys, access = self._plan.keys(), self.guard.access
            if keys is not access.keys:
                self.guard.access = Access(keys, access.quota, most=access.most)
            wrong = self._lost_keys()
        except (WithstandError, OSError) as error:
            wrong = str(error)
            if wrong != self._wrong_keys:
                self.metrics.count("reloads", "keys refused")
        # Told once, not each second.
        if wrong and wrong != self._wrong_keys:
            _log.error("%s", wrong)
        self._wrong_keys = wrong

    async def close(self) -> None:
        """Write down what is left, and let go of everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.guard.settled()
        await asyncio.to_thread(self.release)

    def release(self) -> None:
        """Close everything, evidence too."""
        self.events.close()
        for parts in (*self._retired, self._plan.parts):
            parts.close()

    def _made(
        self, config: GuardConfig, policy: str, before: Parts | None = None
    ) -> tuple[Plan, Guard]:
        plan = Plan(
            config=config, folder=self.path.parent, secrets=self.secrets, parts=Parts(before),
            metrics=self.metrics, policy=policy,
        )  # fmt: skip
        try:
            return plan, plan.guard(self._learning.known(plan))
        except BaseException:
            plan.parts.discard()
            raise

    def _begin_canaries(self) -> None:
        self.canaries.begin()
        try:
            self._plan.rollouts().only(self._plan.identities())
        except ConfigError as error:
            _log.error("%s", error)

    def _check(self, old: GuardConfig, new: GuardConfig) -> None:
        for key in _FIXED:
            was, now = getattr(old, key), getattr(new, key)
            if was != now:
                raise ConfigError(
                    f"{self.path}: guard.{key} is {now}, and this guard has {was}; restart it"
                )
        both = old.evidence is not None and new.evidence is not None
        if both and old.evidence != new.evidence and old.evidence.folder == new.evidence.folder:  # type: ignore[union-attr]
            raise ConfigError(
                f"{self.path}: guard.evidence changes, and its folder is in use; restart the "
                "guard, or give another folder"
            )

    def _limit(self) -> None:
        limits, intake = self.config.limits, self.intake
        intake.body, intake.patience, intake.most = (
            limits.body, limits.body_seconds, limits.requests
        )  # fmt: skip
        intake.memory = max(limits.memory, limits.body)

    def _lost_keys(self) -> str:
        """That the file of keys is not there, and so nobody is let in; nothing where it is."""
        keys = self.guard.access.keys
        if keys is None or keys.path.exists():
            return ""
        return (
            f"keys {keys.path} is not there, so nobody is let in; mount it, or make a key with "
            "`withstand guard key add`"
        )

    def _bring(self, content: dict[str, Any], asked: Inference | None) -> bool:
        journal = self.guard.journal
        return isinstance(journal, EvidenceJournal) and journal.bring(content, asked)

    def _tell(self, kind: str, content: dict[str, Any]) -> bool:
        """Write down in evidence what an operator did; False where that failed."""
        journal = self.guard.journal
        return isinstance(journal, EvidenceJournal) and journal.tell(kind, content)

    def _told(self, result: str, content: dict[str, Any]) -> None:
        self.metrics.count("reloads", result)
        _log.info("new configuration %s: %s", result, content)
        self._tell("reload", {"result": result, **content})

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _retire(self, parts: Parts) -> None:
        """Close what is left of an old guard, when no request can be under way on it any more."""
        limits = self.config.limits
        await asyncio.sleep(limits.body_seconds + limits.answer_seconds + 60.0)
        self._retired.remove(parts)
        await asyncio.to_thread(parts.close)

    async def _silent(self) -> list[str]:
        upstreams = {id(line.upstream): line.upstream for line in self.guard.lines.values()}
        found = await asyncio.gather(*(_asked(one) for one in upstreams.values()))
        return sorted({one for one in found if one})


def _can(action: str, name: str, line: Line) -> None:
    """Raises ConfigError where a line cannot take an action."""
    model = f"model {name or '*'}"
    if line.mode == "observe":
        raise ConfigError(
            f"{model} is observed, and what clients send goes on as it is; set guard.mode to "
            "shadow or enforce"
        )
    if action == "throttle" and line.throttled is None:
        raise ConfigError(f"{model} has no rate to throttle to; add guard.throttle")
    if action == "reroute" and line.reroute is None:
        raise ConfigError(f"{model} has nowhere to reroute to; add guard.reroute")


def _killed(path: Path) -> bool:
    """Whether inspection was off when the guard ended; raises ConfigError for a damaged file."""
    try:
        told = json.loads(path.read_text()) if path.exists() else {"killed": False}
        if told["killed"]:
            _log.warning("inspection is off, by %r: %r", told["who"], told["why"])
        return bool(told["killed"])
    except (OSError, ValueError, TypeError, KeyError):
        raise ConfigError(f"switch {path} cannot be read; restore the file, or remove it") from None


async def _asked(upstream: Upstream) -> str:
    """Why a model server cannot be asked, nothing where it can."""
    try:
        async with asyncio.timeout(_ASKING):
            answer = await upstream.ask("GET", "/v2/health/ready", [])
    except (UpstreamError, TimeoutError):
        return "a model server does not answer"
    # Servers of other protocols have no such path, and say so.
    return "a model server is not ready" if answer.status >= 500 else ""


def _read(path: Path) -> tuple[GuardConfig, str]:
    config = load_guard(path)
    digest = hashlib.sha256(config.model_dump_json().encode())
    for line in (config, *config.models.values()):
        for one in line.inputs or ():
            if one.table is not None:
                # What a table's file says is policy as much as what names it.
                told = load_table(path.parent / one.table)
                digest.update(told.model_dump_json().encode())
                if one.drift is not None:
                    usual = path.parent / one.drift.histograms
                    found = load_histograms(usual, table_of(told, one.table))
                    digest.update(repr(found).encode())
    return config, digest.hexdigest()[:16]
