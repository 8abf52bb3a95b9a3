"""A game day: an attack that nobody on duty knows of, and how long everybody takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from .._errors import OperationError, WithstandError
from ..monitor import Alerts, Observation, Observations, Store
from ..redteam import Campaign, Run
from ..respond import Entry, Incidents

_NAP = 0.5


class Ordered(Protocol):
    """The guard, as far as it tells what was ordered."""

    def mitigations(self) -> list[dict[str, Any]]:
        """The ordered actions that hold: id, action, key and who, among others."""


@dataclass(frozen=True, kw_only=True)
class GameDay:
    """When what happened (seconds since 1970, None where it did not), and what was attacked.

    began: the first query; seen: a campaign of the red team's key; paged: its alert; opened: the
    incident; mitigated: an action was ordered against the key. actions: what was ordered, and by
    whom. timeline: the incident's. stopped: why the attack could not be made, empty where it was.
    """

    key: str
    model: str
    began: float
    seen: float | None = None
    paged: float | None = None
    opened: float | None = None
    mitigated: float | None = None
    campaign: str = ""
    incident: int | None = None
    actions: tuple[str, ...] = ()
    timeline: tuple[Entry, ...] = ()
    runs: tuple[Run, ...] = ()
    stopped: str = ""

    @property
    def detect(self) -> float | None:
        """Seconds from the first query to the page."""
        return None if self.paged is None else self.paged - self.began

    @property
    def recover(self) -> float | None:
        """Seconds from the page to the first action against the attacker."""
        if self.mitigated is None or self.paged is None:
            return None
        return max(0.0, self.mitigated - self.paged)

    def outcome(self, detect: float, recover: float) -> Literal["pass", "fail", "inconclusive"]:
        """Whether both were in time; inconclusive where there was hardly an attack."""
        if self.detect is None or self.recover is None:
            return "inconclusive" if self.stopped else "fail"
        return "pass" if self.detect <= detect and self.recover <= recover else "fail"

    def to_markdown(self) -> str:
        """The report."""
        moments = (
            ("first query", self.began), ("campaign seen", self.seen), ("paged", self.paged),
            ("incident opened", self.opened), ("first action against the key", self.mitigated),
        )  # fmt: skip
        rows = [f"| {name} | {_at(wall)} | {_after(wall, self.began)} |" for name, wall in moments]
        tried = sum(run.tried for run in self.runs)
        lines = [
            f"# Game day on {self.model}, {datetime.fromtimestamp(self.began, UTC):%Y-%m-%d}",
            "",
            f"- time to detect: {_seconds(self.detect)}",
            f"- time to act: {_seconds(self.recover)}",
            f"- attacked inputs: {tried}, fooled: {sum(run.fooled for run in self.runs)}, "
            f"queries: {sum(run.queries for run in self.runs)}",
            f"- actions: {', '.join(self.actions) or 'none'}",
            *([f"- the attack ended early: {self.stopped}"] if self.stopped else []),
            "",
            "| what | when (UTC) | seconds after the first query |",
            "|---|---|---|",
            *rows,
            "",
            "## What was done",
            "",
            *(f"- {_at(one.wall)} {_plain(one.who)}: {_plain(one.text)}" for one in self.timeline),
            *([] if self.timeline else ["Nothing is on the timeline of an incident."]),
            "",
            "## To do",
            "",
            "- [ ] tell those on duty that it was a game day",
            "- [ ] lift what was ordered against the red team's key",
            "- [ ] resolve the incident",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def game_day(
    campaign: Campaign,
    store: Store,
    guard: Ordered,
    *,
    key: str,
    model: str,
    patience: float = 900.0,
    told: Callable[[str], None] = lambda line: None,
) -> GameDay:
    """Attack without a pass until somebody acts, for `patience` seconds at most.

    The scope must be signed as a surprise. What happens is read from the store and the guard, not
    from what the attack itself knows. Raises OperationError where nothing may be sent.
    """
    now = GameDay(key=key, model=model, began=time.time())
    attacking = _Attack(campaign)
    attacking.start()
    alerts, incidents = Alerts(store), Incidents(store)
    # What was ordered before is not an answer to this.
    before = {str(one["id"]) for one in guard.mitigations()}
    end = time.monotonic() + patience
    while time.monotonic() < end:
        new = _looked(now, alerts, incidents, guard, before)
        for name in ("seen", "paged", "opened", "mitigated"):
            if getattr(now, name) is None and getattr(new, name) is not None:
                told(f"{name} after {getattr(new, name) - new.began:.1f} s")
        now = new
        if now.mitigated is not None and now.paged is not None:
            break
        if not attacking.is_alive() and (attacking.error or attacking.stopped):
            break
        time.sleep(_NAP)
    campaign.brakes.halt("the game day is over")
    attacking.join()
    if attacking.error and not attacking.runs:
        raise OperationError(attacking.error)
    timeline = () if now.incident is None else tuple(incidents.timeline(now.incident))
    # Who is refused was acted against, and whoever is halted at the end was not cut short.
    early = "" if now.mitigated is not None else attacking.stopped
    stopped = "" if "the game day is over" in early else early
    now = replace(now, runs=tuple(attacking.runs), timeline=timeline, stopped=stopped)
    _observe(now, store)
    return now


class _Attack(threading.Thread):
    def __init__(self, campaign: Campaign) -> None:
        super().__init__(daemon=True)
        self._campaign = campaign
        self.runs: list[Run] = []
        self.error = ""

    @property
    def stopped(self) -> str:
        """Why it ended before its end."""
        return next((run.stopped for run in self.runs if run.stopped), "")

    def run(self) -> None:
        try:
            self.runs = self._campaign.run()
        except WithstandError as error:
            self.error = str(error)


def _looked(
    now: GameDay, alerts: Alerts, incidents: Incidents, guard: Ordered, before: set[str]
) -> GameDay:
    """What has happened by now."""
    wall = time.time()
    found = next(
        (one for one in alerts.campaigns() if now.key in one.keys and one.last >= now.began), None
    )
    if found is not None:
        now = replace(now, seen=now.seen or wall, campaign=found.id)
        page = next(
            (
                one for one in alerts.all()
                if one.campaign == found.id and one.severity == "page" and not one.suppressed
            ),
            None,
        )  # fmt: skip
        if page is not None:
            now = replace(now, paged=max(page.starts, now.began))
        case = next((one for one in incidents.all() if one.campaign == found.id), None)
        if case is not None:
            now = replace(now, opened=case.opened, incident=case.id)
    orders = [
        one for one in guard.mitigations()
        if one["key"] in ("", now.key) and str(one["id"]) not in before
    ]  # fmt: skip
    if orders:
        actions = dict.fromkeys((*now.actions, *(_order(one) for one in orders)))
        now = replace(now, mitigated=now.mitigated or wall, actions=tuple(actions))
    return now


def _observe(now: GameDay, store: Store) -> None:
    """M8 and M9 of the game day, beside those of real attacks."""
    told = {"M8": now.detect, "M9": now.recover}
    Observations(store).add(
        Observation(
            sli=sli, wall=time.time(), source=f"game-day:{now.began:.0f}:{sli}", value=value,
            model=now.model, labels={"game_day": "true", "campaign": now.campaign},
        )
        for sli, value in told.items()
        if value is not None
    )  # fmt: skip


def _order(told: dict[str, Any]) -> str:
    return _plain(f"{told['action']} by {told.get('who') or 'somebody'}")


def _at(wall: float | None) -> str:
    return "has not happened" if wall is None else f"{datetime.fromtimestamp(wall, UTC):%H:%M:%S}"


def _after(wall: float | None, began: float) -> str:
    return "-" if wall is None else f"{wall - began:.1f}"


def _seconds(value: float | None) -> str:
    return "has not happened" if value is None else f"{value:.1f} s"


def _plain(text: str) -> str:
    """Text of others, without what Markdown or a terminal would take for its own."""
    kept = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>|#!" else c for c in kept)
