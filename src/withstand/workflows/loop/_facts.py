"""What really happened, as the evidence and the monitor's store tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..._errors import OperationError
from ...evidence.log import Place, Record, read, verify
from ...monitor import Alerts, Observations, Store
from ...redteam import Run, Runs
from ...respond import Incident, Incidents
from ...stats import Interval, wilson

DETECT, ROLL_BACK = 60.0, 1.0
"""Seconds that detection and rollback may take."""

_WRITTEN = (
    "Impact", "Times", "Timeline", "Campaign", "Actions taken", "What was logged",
    "Contributing findings", "Action items", "Evidence", "Replay", "Corpus and retraining",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the loop: its name, how many seconds it took, and what came of it."""

    name: str
    seconds: float
    text: str


@dataclass(frozen=True, kw_only=True)
class LoopReport:
    """The whole loop.

    detect: seconds from the attacker's first query to the page; roll_back: from the guard's
    decision against the canary to the last request that it answered to a client. before, after:
    fooled shares of the stable version and of the one that replaced it, on the same images.
    records: of the evidence, whose chain holds.
    """

    stages: tuple[Stage, ...]
    detect: float
    roll_back: float
    before: Interval
    after: Interval
    records: int
    files: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        told = asdict(self)
        return {**told, "before": self.before.to_dict(), "after": self.after.to_dict()}


def records(folder: Path) -> list[Record]:
    """The evidence from its beginning."""
    return [place.record for place in read(folder / "evidence") if isinstance(place, Place)]


def canary_fell(found: list[Record]) -> float | None:
    """Seconds from the rollback's record to the last answer of the canary, None without one.

    Requests that were sent to it before and answered after count.
    """
    moves = [(one.wall, one.content["state"]) for one in found if one.kind == "canary"]
    fell = next((wall for wall, state in moves if state == "rolled_back"), None)
    if fell is None:
        return None
    again = next(
        (wall for wall, state in moves if wall > fell and state == "running"), float("inf")
    )
    last = [
        one.wall for one in found
        if one.kind == "decision" and one.content.get("arm") == "canary" and fell < one.wall < again
    ]  # fmt: skip
    return max((wall - fell for wall in last), default=0.0)


def first_query(found: list[Record], key: str) -> float:
    """When the attacker's first request was decided on; raises OperationError where none was."""
    walls = [one.wall for one in found if one.kind == "decision" and one.content.get("key") == key]
    if not walls:
        raise OperationError("evidence has no request of the attacker")
    return min(walls)


def fooled(runs: list[Run], arm: str) -> Interval:
    """The fooled share of the newest run on an arm; raises OperationError where none was tried."""
    found = next((run for run in runs if run.id.endswith(f"-{arm}") and run.tried), None)
    if found is None:
        raise OperationError(f"no probe of the arm {arm} was tried")
    return wilson(found.fooled, found.tried)


def checked(folder: Path, attacker: str, incident: int, postmortem: Path) -> int:
    """Raise OperationError for the first thing that did not happen; the number of records."""
    found, store = records(folder), Store(folder / "monitor")
    told = verify(folder / "evidence")
    if told.faults:
        raise OperationError(f"the evidence does not hold: {told.faults[0]}")
    states = [one.content["state"] for one in found if one.kind == "canary"]
    orders = [one.content for one in found if one.kind == "mitigation"]
    incidents = Incidents(store)
    one: Incident = incidents.get(incident)
    steps = {step.action: step.state for step in incidents.steps(incident)}
    campaigns = [each for each in Alerts(store).campaigns() if attacker in each.keys]
    text = postmortem.read_text()
    wanted = {
        "a campaign of the attacker's key": bool(campaigns) and not campaigns[0].experiment,
        "an incident about it": bool(campaigns) and one.campaign == campaigns[0].id,
        "a page that was detected": bool(Observations(store).of("M8")),
        "an order to throttle the attacker": any(
            order["action"] == "throttle" and order["key"] == attacker for order in orders
        ),
        "evidence that was set aside": steps.get("snapshot_evidence") == "done",
        "a replay": steps.get("replay") == "done",
        "a corpus": steps.get("add_to_corpus") == "done",
        "a model that the gate passes": steps.get("retrain") == "done",
        "a rollback": "rolled_back" in states,
        "a promotion after it": "rolled_back" in states
        and "promoted" in states[states.index("rolled_back") :],
        "probes of the red team": bool(Observations(store).of("M1")),
        "an incident that is resolved": one.state == "resolved",
        "finished runs": all(run.state != "running" for run in Runs(store).all()),
        **{f"{name!r} in the postmortem": f"## {name}" in text for name in _WRITTEN},
    }
    missing = next((name for name, there in wanted.items() if not there), None)
    if missing is not None:
        raise OperationError(f"the loop is not closed: there is no sign of {missing}")
    store.close()
    return len(found)
