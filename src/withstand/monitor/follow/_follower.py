"""Follows the evidence of a guard, and counts what it decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..._errors import OperationError
from ...config import CampaignsConfig
from ...evidence.log import Break, Lost, Position, Record, walk_on
from ..campaigns import Grouper
from ..store import Alerts, Campaign, Counts, Memory, Store
from ._counting import Counting

_NAME = "follower"
_JUMP = 30.0
_RECENT = 4 * 86_400
_MOST = 20_000


@dataclass(frozen=True, kw_only=True)
class Followed:
    """What a look at the evidence has found.

    records: that were new. behind: whether there are more. last: time of the newest one that was
    read, None for none so far. broken: where the chain breaks, or empty. lost: records that were
    gone before they could be read, since the store was made. jumps: how often the clock was set.
    """

    records: int = 0
    behind: bool = False
    last: float | None = None
    broken: str = ""
    lost: int = 0
    jumps: int = 0


class Follower:
    """Reads on in a log from where it was, counts decisions, and groups what was flagged.

    Position, counts and groups are written in one transaction, so that each decision counts once
    whenever the process ends, and however many follow the same log with the same store. At most
    `most` records are read at a time, and no more is held in memory than the grouper does. Where
    the clock of the guard is set, what was counted before moves with it: windows are about how long
    ago something was. models: those that the operator has named. seen: hears of each decision, and
    of some twice.
    """

    def __init__(
        self, store: Store, folder: Path, *, campaigns: CampaignsConfig | None = None,
        models: frozenset[str] = frozenset(), most: int = _MOST,
        clock: Callable[[], float] = time.time,
        seen: Callable[[Record], None] = lambda record: None,
    ) -> None:  # fmt: skip
        self._seen = seen
        self.folder, self._store, self._most, self._clock = folder, store, most, clock
        self._memory, self._alerts = Memory(store), Alerts(store)
        self._campaigns, self._models = campaigns or CampaignsConfig(), models
        Counts(store)
        self._position: Position | None = None
        self._last: tuple[str, float, float] | None = None
        self._looks = self._lost = self._jumps = 0
        self._load()

    @property
    def latest(self) -> dict[str, tuple[str, float]]:
        """The newest bad request, its id and time, by "SLI MODEL"."""
        return self._counting.latest

    def step(self) -> tuple[Followed, list[Campaign]]:
        """Read on; what was found, and the campaigns that have changed.

        Raises EvidenceError where the log cannot be read, and OperationError where the store cannot
        be written; what was read is then read again.
        """
        records, behind, broken, jump = 0, False, "", 0.0
        for place in walk_on(self.folder, self._position):
            if isinstance(place, Break):
                broken = str(place)
                break
            if isinstance(place, Lost):
                self._lost += place.records
                broken = "" if place.records else place.why
                continue
            if records >= self._most:
                behind = True
                break
            jump = self._jumped(place.record)
            if jump:
                behind = True
                break
            if place.record.kind == "decision":
                self.grouper.see(self._counting.take(place.record))
                self._seen(place.record)
            records += 1
            self._position = Position(
                segment=int(place.segment.stem), begin=place.end, seq=place.record.seq,
                hash=place.record.hash, wall=place.record.wall,
            )  # fmt: skip
        # What is not read yet may go on with what was.
        self.grouper.settle(self._last[1] if behind and self._last else self._clock())
        changed: list[Campaign] | None = []
        if records or jump or self.grouper.stirred:
            try:
                changed = self._keep(jump)
            except OperationError:
                self._load()
                raise
        if changed is None:
            self._load()
            return Followed(behind=True), []
        found = Followed(
            records=records, behind=behind, last=None if self._last is None else self._last[1],
            broken=broken, lost=self._lost, jumps=self._jumps,
        )  # fmt: skip
        return found, changed

    def _load(self) -> None:
        """Go on from what was written down last."""
        told = self._memory.get(_NAME) or {}
        place, last = told.get("position"), told.get("last")
        self._position = None if place is None else Position(**place)
        self._last = None if last is None else (last[0], last[1], last[2])
        self._looks, self._lost, self._jumps = (
            told.get(name, 0) for name in ("looks", "lost", "jumps")
        )
        self._counting = Counting(
            models=self._models,
            latest={name: (one[0], one[1]) for name, one in told.get("latest", {}).items()},
        )  # fmt: skip
        self.grouper = Grouper(self._campaigns)
        if "groups" in told:
            self.grouper.restore(told["groups"], self._alerts.campaigns(open=True, last=100_000))

    def _jumped(self, record: Record) -> float:
        """How far the clock was set since the record before, 0 where it was not."""
        before, self._last = self._last, (record.boot, record.wall, record.mono)
        if before is None or before[0] != record.boot:
            return 0.0
        jump = (record.wall - before[1]) - (record.mono - before[2])
        return jump if abs(jump) > _JUMP else 0.0

    def _overtaken(self) -> bool:
        """Whether another process has gone on with the same store meanwhile."""
        told = self._memory.get(_NAME) or {}
        return int(told.get("looks", 0)) != self._looks

    def _keep(self, jump: float) -> list[Campaign] | None:
        """Write all of it down, or nothing where another process has done so; what has changed."""
        counting = self._counting
        changed: list[Campaign] = []
        with self._store.writing() as file:
            if self._overtaken():
                return None
            Counts.within(file, counting.counts, counting.moments)
            if jump:
                self._jumps += 1
                assert self._last is not None
                Counts.shift(file, self._last[1] - jump - _RECENT, round(jump / 60) * 60)
                self.grouper.shift(jump)
            changed = self.grouper.changed()
            told = {
                "position": None if self._position is None else asdict(self._position),
                "looks": self._looks + 1, "last": self._last, "lost": self._lost,
                "jumps": self._jumps,
                "latest": counting.latest,
                "groups": self.grouper.snapshot(),
            }  # fmt: skip
            for campaign in changed:
                Alerts.campaign_within(file, campaign)
            Memory.within(file, _NAME, told)
        self._looks += 1
        counting.counts.clear()
        counting.moments.clear()
        return changed
