"""The monitor: looks at the evidence again and again, and tells who must know."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from .._errors import EvidenceError, OperationError, WithstandError
from ..config import host_and_port, load_operations
from ._alerting import BROKEN, NO_DATA, SILENT, attacking, burning, settle, trouble
from ._reports import coverage, degradation
from ._silences import Silences
from ._status import SloStatus, status
from ._vouching import SIGNING, Vouching
from .follow import Followed, Follower
from .slo import Slo, slos_of
from .store import Alert, Alerts, Audit, Campaign, Counts, Memory, Observation, Observations, Store
from .tell import Outbox, Receivers, Spans

_log = logging.getLogger("withstand.monitor")
_ANSWER = 2.0
_TIDY = 600.0
_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look has found: the evidence, campaigns that grew, alerts that are new or over."""

    followed: Followed
    slos: tuple[SloStatus, ...]
    campaigns: tuple[Campaign, ...]
    fired: tuple[Alert, ...]
    resolved: tuple[Alert, ...]


class Monitor:
    """What is measured of a model in service, as a withstand.yaml says.

    `step` is one look, which `run` takes again and again; `receivers.deliver` tells of alerts,
    which `run` does beside it. alive: whether the guard answers; if not given, its admin port is
    asked. looked: when the last look was. Raises WithstandError where the file is wrong.
    """

    def __init__(
        self, path: str | Path, *, clock: Callable[[], float] = time.time,
        alive: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self.told = told = load_operations(self.path)
        self.config, self.guard, self.clock = told.monitor, told.guard, clock
        folder = self.path.parent
        self.slos: list[Slo] = slos_of(self.config)
        self.store = Store(folder / self.config.folder)
        self.receivers = Receivers(self.store, self.config.receivers, folder, clock=clock)
        self.alerts, self._counts = Alerts(self.store), Counts(self.store)
        self._observed, self._memory = Observations(self.store), Memory(self.store)
        self._silences = Silences(self.store)
        place = self.config.audit_anchor
        self._vouching = None if place is None else Vouching(
            Audit(self.store), place, key=self.store.folder / SIGNING, folder=folder
        )  # fmt: skip
        evidence = None if self.guard is None else self.guard.evidence
        named = () if self.guard is None else tuple(self.guard.models)
        models = frozenset([*named, *(slo.model for slo in self.slos)])
        self.spans = None if self.config.traces is None else Spans(self.config.traces)
        self.follower = None if evidence is None else Follower(
            self.store, folder / evidence.folder, campaigns=self.config.campaigns, models=models,
            clock=clock, seen=(lambda record: None) if self.spans is None else self.spans.see,
        )  # fmt: skip
        self._alive = alive or self._asked
        self._answered, self.looked, self._tidied = clock(), 0.0, 0.0
        self.last: Look | None = None
        self.lost = 0
        began = self._memory.get("began")
        # A clock that was set back since must not make it wait until then.
        self._began: float = clock() if began is None else min(began, clock())
        if self._began != began:
            self._memory.put("began", self._began)

    def step(self) -> Look:
        """One look: read on, count, group, see which alerts hold, and note whom to tell.

        Nothing is sent, but for asking whether the guard lives.
        """
        now = self.clock()
        holding: list[Alert] = []
        followed = Followed()
        campaigns: list[Campaign] = []
        if self.follower is not None:
            try:
                followed, campaigns = self.follower.step()
                broken = followed.broken
            except EvidenceError as error:
                broken = str(error)
            if broken:
                holding.append(trouble(BROKEN, "page", now, f"the evidence is broken: {broken}"))
        for read in (coverage, degradation):
            try:
                self._observed.add(read(self.config, self.path.parent, now))
            except OperationError as error:
                holding.append(trouble(NO_DATA, "ticket", now, str(error), of=read.__name__))
        forged = "" if self._vouching is None else self._vouching.look()
        if forged:
            summary = f"the audit log was written anew: {forged}"
            holding.append(trouble(BROKEN, "page", now, summary, of="audit"))
        found = status(self.store, self.slos, now)
        for one in found:
            holding += burning(one, now)
            holding += self._no_data(one, now)
        if self.guard is not None and not self._lives(now):
            seconds = now - self._answered
            summary = f"the guard at {self.guard.admin} has not answered for {seconds:.0f} s"
            holding.append(trouble(SILENT, "page", now, summary))
        open_ones = self.alerts.campaigns(open=True, last=100_000)
        holding += [attacking(one, now) for one in open_ones]
        fired, resolved = settle(self.alerts, holding, now)
        self._detected(open_ones, now)
        silences = self._silences.all(now - _DAY)
        self.receivers.put(
            [*self.alerts.all(open=True, last=100_000), *self.alerts.ended(now - _DAY)], now,
            silenced=lambda alert: any(one.covers(alert, now) for one in silences),
        )  # fmt: skip
        self._tidy(now)
        self.last = Look(
            followed=followed, slos=tuple(found), campaigns=tuple(campaigns), fired=tuple(fired),
            resolved=tuple(resolved),
        )  # fmt: skip
        return self.last

    def run(self, stop: threading.Event) -> None:
        """Look until it is stopped, and tell receivers beside it."""
        threads = self.receivers.run(stop)
        if self.spans is not None:
            threads.append(self.spans.run(stop))
        try:
            while not stop.is_set():
                try:
                    behind = self.step().followed.behind
                except WithstandError as error:
                    # A store without room has some again one day; until then nothing looks well.
                    _log.error("%s", error)
                    behind = False
                if not behind:
                    stop.wait(self.config.every)
        finally:
            stop.set()
            for one in threads:
                one.join(15.0)
            if self._vouching is not None:
                self._vouching.close()
            self.store.close()

    def own(self) -> Mapping[str, tuple[str, Mapping[str, float]]]:
        """How the monitor itself is, as gauges by name: what they mean, and values by receiver."""
        look = self.last
        followed = Followed() if look is None else look.followed
        found: dict[str, tuple[str, Mapping[str, float]]] = {
            "last_look_timestamp_seconds": ("When it looked last.", {"": self.looked}),
            "every_seconds": ("How long it waits between two looks.", {"": self.config.every}),
            "behind": ("Whether there is evidence that it has not read.", {"": followed.behind}),
            "lost_records": ("Records that were purged unread.", {"": followed.lost}),
            "clock_jumps": ("How often the guard's clock was set.", {"": followed.jumps}),
            "outbox_lost": ("Messages that were given up.", {"": self.lost}),
        }
        if self._vouching is not None:
            failures = {"": float(self._vouching.failures)}
            found["audit_anchor_failures"] = ("Checkpoints that were not kept.", failures)
        if self.spans is not None:
            found["spans_lost"] = ("Spans that were given up.", {"": float(self.spans.lost)})
        if followed.last is not None:
            lag = max(0.0, self.clock() - followed.last)
            found["evidence_age_seconds"] = ("Age of the newest record read.", {"": lag})
        if self.config.receivers:
            depth = Outbox(self.store).depth()
            # One that is no longer there is waited for by nobody.
            left = {name: float(depth.get(name, 0)) for name in self.config.receivers}
            found["outbox_messages"] = ("Messages that were not delivered yet.", left)
        return found

    def latest(self) -> dict[str, tuple[str, float]]:
        """The newest bad request, its id and time, by "SLI MODEL"."""
        return {} if self.follower is None else dict(self.follower.latest)

    def _no_data(self, one: SloStatus, now: float) -> list[Alert]:
        since = now - 3600 * self.config.no_data
        self._began = min(self._began, now)
        if self._began > since or self._counts.buckets(
            one.slo.sli, one.slo.model, since=since, until=now + 60, width=86_400
        ):
            return []
        summary = f"{one.slo.name}: {one.sli.name} has had no event for {self.config.no_data:g} h"
        return [trouble(NO_DATA, "ticket", now, summary, slo=one.slo.name, sli=one.sli.id)]

    def _lives(self, now: float) -> bool:
        if self._alive():
            self._answered = now
        # A clock that was set back must not look like an answer to come.
        self._answered = min(self._answered, now)
        return now - self._answered < self.config.silent

    def _asked(self) -> bool:
        assert self.guard is not None
        host, port = host_and_port(self.guard.admin)
        with closing(HTTPConnection(host, port, timeout=_ANSWER)) as connection:
            try:
                connection.request("GET", "/health/live")
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                return False

    def _detected(self, campaigns: list[Campaign], now: float) -> None:
        """M8 of each campaign that somebody is paged for, once."""
        self._observed.add(
            Observation(
                sli="M8", wall=now, source=f"campaign:{one.id}", value=max(0.0, now - one.first),
                model=one.model, labels={"campaign": one.id},
            )
            for one in campaigns
            if not one.experiment
        )  # fmt: skip

    def _tidy(self, now: float) -> None:
        self.looked = now
        if not 0 <= now - self._tidied < _TIDY:
            self._tidied = now
            self._counts.merge(now)
            self.lost += Outbox(self.store).forget(now)
