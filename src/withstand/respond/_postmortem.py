"""What happened in an incident, written down for those who were not there."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from .._errors import WithstandError
from ..evidence.log import Record, Verified, verify
from ..monitor import Act, Alert, Campaign
from ._desk import Desk
from ._files import digest, put
from ._incidents import Entry, Incident, Step
from ._markdown import escaped
from ._replay import JSON
from ._run import first_alert
from ._trail import trail

NOTHING = "not recorded"
"""What stands in the place of a figure that nobody has: never a pass, never a zero."""

_ROWS = 20


def postmortem(desk: Desk, identity: int) -> str:
    """The postmortem of an incident in Markdown; text of unknown origin is shown as text.

    It rests on timeline, audit, evidence and the last replay. What none of them tells is said to be
    not recorded.
    """
    case = _Case(desk, desk.incidents.get(identity))
    parts = (
        _summary, _impact, _times, _timeline, _campaign, _actions, _logged, _findings, _items,
        _proof, _replayed, _learned,
    )  # fmt: skip
    return "\n".join(line for part in parts for line in (*part(case), ""))


def write_postmortem(desk: Desk, identity: int, path: Path, *, who: str) -> None:
    """Write it to a file, and that into the timeline; raises OutputError."""
    put(path, postmortem(desk, identity))
    desk.incidents.advance(
        identity,
        Entry(wall=time.time(), who=who, kind="postmortem", text=f"postmortem in {path.name}",
              detail={"sha256": digest(path)}),
        Act(who=who, role="responder", action="postmortem", about=f"incident:{identity}"),
    )  # fmt: skip


@dataclass(frozen=True)
class _Case:
    """An incident with everything that is known of it, each read once; a text says why not."""

    desk: Desk
    incident: Incident

    @cached_property
    def campaign(self) -> Campaign | None:
        return self.desk.campaign(self.incident)

    @cached_property
    def steps(self) -> list[Step]:
        return self.desk.incidents.steps(self.incident.id)

    @cached_property
    def timeline(self) -> list[Entry]:
        return self.desk.incidents.timeline(self.incident.id)

    @cached_property
    def page(self) -> float | None:
        alert = first_alert(self.desk, self.incident)
        return None if alert is None else alert.starts

    @cached_property
    def alerts(self) -> set[tuple[str, float]]:
        return {
            (Alert(labels=one.detail["labels"], starts=one.wall).fingerprint, one.wall)
            for one in self.timeline
            if one.kind == "alert"
        }

    @cached_property
    def records(self) -> list[Record] | str:
        if self.campaign is None:
            return "the incident has no campaign"
        try:
            return trail(self.desk.evidence, self.campaign)
        except WithstandError as error:
            return str(error)

    @cached_property
    def chain(self) -> Verified | str:
        try:
            return verify(self.desk.evidence)
        except WithstandError as error:
            return str(error)

    @cached_property
    def replay(self) -> dict[str, Any] | None:
        return _json(self.desk.folder(self.incident.id) / JSON)

    @cached_property
    def manifest(self) -> dict[str, Any] | None:
        return _json(self.desk.folder(self.incident.id) / "manifest.json")


def _summary(case: _Case) -> Iterable[str]:
    one = case.incident
    yield f"# Postmortem of incident {one.id}: {escaped(one.title)}"
    yield ""
    yield f"- severity: {one.severity}; state: {one.state}"
    yield f"- model: {escaped(one.model) or NOTHING}"
    yield f"- led by: {escaped(one.lead) or NOTHING}"
    yield f"- opened: {_when(one.opened)} (all times are UTC)"
    found = case.campaign
    if found is None:
        yield f"- campaign: {NOTHING}"
    else:
        who = "One client" if found.kind == "client" else f"{found.clients:,} clients"
        yield (
            f"- {who} asked {found.requests:,} times, of which {found.flagged:,} were flagged, "
            f"from {_when(found.first)} to {_when(found.last)}."
        )


def _impact(case: _Case) -> Iterable[str]:
    yield "## Impact"
    yield ""
    if isinstance(case.records, str):
        yield f"- requests in the evidence: {NOTHING} ({escaped(case.records)})"
    else:
        told = Counter(str(one.content.get("decision")) for one in case.records)
        counts = ", ".join(f"{count:,} {escaped(name)}" for name, count in sorted(told.items()))
        yield f"- requests in the evidence: {len(case.records):,} ({counts or 'none'})"
        modes = Counter(str(one.content.get("mode", "")) for one in case.records)
        yield f"- mode of the guard: {escaped(', '.join(sorted(modes))) or NOTHING}"
    yield f"- inputs that fooled the model, by replay: {_share(case, 'fooled')}"
    for name in (case.replay or {}).get("models", []):
        yield f"- and now, {escaped(name)}: {_share(case, 'fooled_now', name)}"


def _times(case: _Case) -> Iterable[str]:
    one, found, page = case.incident, case.campaign, case.page
    first = None if found is None else found.first
    yield "## Times"
    yield ""
    yield "| what | when | took |"
    yield "|---|---|---|"
    yield f"| first flagged request | {_when(first)} | |"
    yield f"| page | {_when(page)} | time to detect: {_took(first, page)} |"
    yield f"| mitigated | {_when(one.mitigated)} | time to recover: {_took(page, one.mitigated)} |"
    yield f"| resolved | {_when(one.resolved)} | {_took(page, one.resolved)} |"


def _timeline(case: _Case) -> Iterable[str]:
    yield "## Timeline"
    yield from ("", "| when | who | what |", "|---|---|---|")
    since = min((starts for _, starts in case.alerts), default=time.time())
    ended = [
        Entry(wall=one.ends, who="monitor", kind="alert", text=f"{one.name} has ended")
        for one in case.desk.alerts.ended(since - 1.0)
        if one.ends is not None and (one.fingerprint, one.starts) in case.alerts
    ]
    for entry in sorted((*case.timeline, *ended), key=lambda one: one.wall):
        text = escaped(f"{entry.kind}: {entry.text}")
        yield f"| {_when(entry.wall)} | {escaped(entry.who)} | {text} |"


def _campaign(case: _Case) -> Iterable[str]:
    yield "## Campaign and kind of attack"
    yield ""
    found = case.campaign
    if found is None:
        yield f"- campaign: {NOTHING}"
    else:
        sensors = ", ".join(f"{name} {n:,}" for name, n in sorted(found.sensors.items()))
        keys = ", ".join(f"`{escaped(key[:16])}`" for key in found.keys)
        yield f"- campaign {escaped(found.id)}: {found.kind}, tenant {escaped(found.tenant) or '-'}"
        yield f"- keys: {keys or NOTHING}"
        yield f"- flagged by: {escaped(sensors) or NOTHING}; different inputs: {found.distinct:,}"
    told = (case.replay or {}).get("attribution")
    if told is None:
        yield f"- kind of attack: {NOTHING}; run `withstand incident replay {case.incident.id}`"
        return
    sure = told["confidence"]
    said = "not measured" if sure is None else f"right in at least {sure:.0%} of such verdicts"
    why = escaped("; ".join(told["why"]))
    yield f"- kind of attack: {escaped(told['family'])} ({said}): {why}"


def _actions(case: _Case) -> Iterable[str]:
    yield "## Actions taken"
    yield ""
    if not case.steps:
        yield f"{NOTHING}: no runbook was begun."
        return
    yield "| step | runbook | what | action | approved by | state | result |"
    yield "|---|---|---|---|---|---|---|"
    for step in case.steps:
        cells = (step.runbook, step.name, step.action, step.approved or "-", step.state,
                 step.result or "-")  # fmt: skip
        yield f"| {step.number} | {' | '.join(escaped(cell) for cell in cells)} |"


def _logged(case: _Case) -> Iterable[str]:
    yield "## What was logged, and what was missing"
    yield ""
    chain, records = case.chain, case.records
    if isinstance(chain, str):
        yield f"- evidence: {NOTHING} ({escaped(chain)})"
    else:
        yield (
            f"- evidence: {chain.head.seq:,} records; {chain.lost:,} lost, "
            f"{chain.unclean:,} of {chain.boots:,} starts after an end without closing, "
            f"{chain.erased:,} inputs erased, {chain.purged:,} records purged for their age"
        )
    if isinstance(records, str):
        yield f"- inputs: {NOTHING} ({escaped(records)})"
        return
    kept = sum(isinstance(one.content.get("input"), str) for one in records)
    yield f"- inputs: {kept:,} of {len(records):,} requests have theirs in the vault"
    for why, count in _lost(records).items():
        yield f"- inputs lost, {escaped(why)}: {count:,}"
    failed = _failed(records)
    for name, count in sorted(failed.items()):
        yield f"- sensor {escaped(name)} has failed on {count:,} of {len(records):,} requests"
    if not failed:
        yield "- sensors: none has failed on these requests" if records else (
            f"- sensors: {NOTHING}"
        )  # fmt: skip


def _findings(case: _Case) -> Iterable[str]:
    """What contributed, as far as the records tell it by themselves."""
    yield "## Contributing findings"
    yield ""
    found = []
    records = [] if isinstance(case.records, str) else case.records
    would = sum(bool(one.content.get("would")) for one in records)
    if would:
        found.append(f"{would:,} requests would have met an action that the guard's mode forbids")
    for name, count in sorted(_failed(records).items()):
        found.append(f"sensor {escaped(name)} failed {count:,} times and saw nothing")
    if not isinstance(case.chain, str) and case.chain.lost:
        found.append(f"{case.chain.lost:,} records were lost, so that counts are too low")
    differs = sum(one["parity"] == "differs" for one in (case.replay or {}).get("inputs", []))
    if differs:
        found.append(f"{differs:,} recorded inputs are not what the guard has checked")
    for step in case.steps:
        if step.state == "failed":
            found.append(f"step {step.number} failed: {escaped(step.result)}")
    for name, share in ((case.replay or {}).get("fooled_now") or {}).items():
        if share is not None and share["value"]:
            found.append(
                f"model {escaped(name)} still is wrong on {100 * share['value']:.1f} % of them"
            )
    yield from (f"- {line}" for line in found)
    if not found:
        yield f"- {NOTHING}: the records tell of none; add what people know"


def _items(case: _Case) -> Iterable[str]:
    yield "## Action items"
    yield ""
    one = case.incident
    if one.state != "resolved":
        yield f"- [ ] resolve it: `withstand incident resolve {one.id} --why ...`"
    for step in case.steps:
        if one.state != "resolved" and step.state in ("approval", "pending", "running"):
            yield f"- [ ] step {step.number}, {escaped(step.name)}: {step.state}"
        if step.state == "failed":
            yield f"- [ ] step {step.number}, {escaped(step.name)}: failed; do it by hand, or again"
    if case.replay is None:
        yield f"- [ ] replay: `withstand incident replay {one.id}`"
    else:
        unseen = {
            shown["fingerprint"]
            for shown in case.replay["inputs"]
            if case.desk.reviews.of(shown["fingerprint"]) is None
        }
        if unseen:
            yield f"- [ ] review {len(unseen):,} inputs that nobody has looked at"
    if not any(step.action == "retrain" and step.state == "done" for step in case.steps):
        yield "- [ ] decide whether to retrain; no new weights are recorded"
    yield "- [ ] say here what people have learned that the records do not tell"


def _proof(case: _Case) -> Iterable[str]:
    yield "## Evidence"
    yield ""
    if isinstance(case.chain, str):
        yield f"- chain: {NOTHING} ({escaped(case.chain)})"
    else:
        faults = case.chain.faults
        yield f"- chain: {'broken' if faults else 'whole'} up to record {case.chain.head.seq:,}"
        yield f"- head: `{case.chain.head.hash}`"
        yield from (f"- fault: {escaped(fault)}" for fault in faults[:_ROWS])
        anchored = case.chain.anchored
        yield f"- anchored up to: {f'{anchored:,}' if anchored else f'{NOTHING} here'}"
    if case.manifest is None:
        yield f"- snapshot: {NOTHING}"
        return
    yield (
        f"- snapshot of {_when(case.manifest['taken'])}: {case.manifest['records']:,} records, "
        f"sha256 `{case.manifest['sha256']}`"
    )


def _replayed(case: _Case) -> Iterable[str]:
    yield "## Replay"
    yield ""
    told = case.replay
    if told is None:
        yield f"{NOTHING}."
        return
    yield f"True classes: {escaped(told['reference'])}."
    yield ""
    yield "| record | flagged by | then | now | its class | proven wrong | parity |"
    yield "|---|---|---|---|---|---|---|"
    order = sorted(told["inputs"], key=lambda one: (one["proven"] is not True, one["seq"]))
    for one in order[:_ROWS]:
        now = ", ".join(f"{name} {label}" for name, label in one["now"].items())
        cells = (
            f"{one['seq']}.{one['row']}", ", ".join(one["sensors"]), _value(one["recorded"]), now,
            _value(one["label"]), _value(one["proven"]), one["parity"],
        )  # fmt: skip
        yield f"| {' | '.join(escaped(cell) or '-' for cell in cells)} |"
    if len(order) > _ROWS:
        yield ""
        yield f"{len(order) - _ROWS:,} more inputs are in {JSON}."


def _learned(case: _Case) -> Iterable[str]:
    yield "## Corpus and retraining"
    yield ""
    for action, what in (("add_to_corpus", "corpus"), ("retrain", "retraining")):
        steps = [step for step in case.steps if step.action == action]
        if not steps:
            yield f"- {what}: {NOTHING}"
        for step in steps:
            yield f"- {what}: {step.state}: {escaped(step.result) or NOTHING}"


def _share(case: _Case, name: str, model: str | None = None) -> str:
    told: Any = (case.replay or {}).get(name)
    if model is not None:
        told = (told or {}).get(model)
    if told is None:
        return NOTHING
    ends = f"[{100 * told['low']:.1f}, {100 * told['high']:.1f}]"
    return f"{100 * told['value']:.1f} % {ends} of {told['n']:,} that can be judged"


def _lost(records: Sequence[Record]) -> dict[str, int]:
    return Counter(
        str(one.content.get("input_lost", "not asked for"))
        for one in records
        if not isinstance(one.content.get("input"), str)
    )


def _failed(records: Sequence[Record]) -> Counter[str]:
    return Counter(
        str(signal[0])
        for one in records
        for signal in one.content.get("signals", ())
        if isinstance(signal, list) and signal[4:] and signal[4]
    )


def _when(wall: float | None) -> str:
    if wall is None:
        return NOTHING
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M:%S}"


def _took(begin: float | None, end: float | None) -> str:
    return NOTHING if begin is None or end is None else f"{end - begin:,.1f} s"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found
