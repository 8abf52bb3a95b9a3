"""Alerts become incidents, and runbooks that may begin by themselves do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .._errors import OperationError, WithstandError, one_line
from ..monitor import Act, Alert, Severity
from ._desk import Desk
from ._incidents import Entry, Incident
from ._reviews import Review, Verdict
from ._run import Tell, first_alert, go_on, is_over, recovered, run_runbook, runbooks
from ._to_corpus import tell_corpus
from ._trail import first_record

WHO = "responder"
"""What the responder is called on timelines and in the audit."""

# Of those that fire: a flood of them must not hide what came first.
_ALERTS = 100_000
# Seconds after which the monitor has surely written down that an alert has ended.
_LATE = 300.0
_SELDOM = 60.0
_UNDER_WAY = ("running", "approval", "pending")


class Responder:
    """Works through alerts and incidents, a pass at a time; any number of them beside each other.

    Raises ConfigError and OperationError for a file that is broken, runbooks included.
    """

    def __init__(self, config: str | Path = "withstand.yaml", *, tell: Tell | None = None) -> None:
        self.desk = Desk(config)
        self._tell = tell
        self._runbooks = runbooks(self.desk)
        for name in self.desk.config.respond.automatic:
            if name not in self._runbooks:
                raise OperationError(
                    f"respond.automatic names {name!r}, which is no runbook; they are "
                    f"{', '.join(self._runbooks)}"
                )

    def step(self) -> list[Incident]:
        """One pass: take alerts, begin and go on with runbooks; the incidents now new.

        What goes wrong with one incident is raised when all the others have been seen to.
        """
        new, failed = self._take(), None
        for incident in self.desk.incidents.unresolved():
            try:
                self._begin(incident)
                go_on(self.desk, incident.id, who=WHO, tell=self._tell)
                self._look(self.desk.incidents.get(incident.id))
            except WithstandError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return new

    def run(self, ended: Callable[[], bool], *, told: Callable[[str], None]) -> None:
        """Pass after pass until `ended`; what goes wrong in one is told, and does not end it."""
        said = ""
        while not ended():
            try:
                for incident in self.step():
                    told(f"incident {incident.id} opened: {incident.title}")
                said = ""
            except WithstandError as error:
                if str(error) != said:
                    said = str(error)
                    told(f"error: {one_line(said, 500)}")
            until = time.monotonic() + self.desk.config.respond.every
            while not ended() and time.monotonic() < until:
                time.sleep(min(0.2, self.desk.config.respond.every))

    def _take(self) -> list[Incident]:
        """An incident for every alert that fires, or has ended since the last pass of anybody.

        None for what an experiment explains, and for what was over before anybody looked.
        """
        found, now = [], time.time()
        since = self.desk.incidents.watched(now)
        firing = self.desk.alerts.all(open=True, last=_ALERTS)
        # Oldest first, so that an incident is opened by what came first.
        for alert in sorted(
            (*firing, *self.desk.alerts.ended(since)), key=lambda alert: alert.starts
        ):
            if alert.suppressed or not self._wanted(alert):
                continue
            taken = self.desk.incidents.take(alert, self._group(alert), _title(alert), WHO)
            if taken is not None and taken[1]:
                found.append(taken[0])
        until = min(now, max(since, now - _LATE))
        # Not at every pass: to take an alert again changes nothing.
        if not since <= until < since + _SELDOM:
            self.desk.incidents.watch(until)
        return found

    def _wanted(self, alert: Alert) -> bool:
        """Whether an alert opens an incident; one about a campaign joins that of the campaign."""
        if alert.severity == "page" or self.desk.config.respond.tickets:
            return True
        return bool(alert.campaign) and any(
            one.campaign == alert.campaign for one in self.desk.incidents.unresolved()
        )

    def _group(self, alert: Alert) -> str:
        if alert.campaign:
            return f"campaign:{alert.campaign}"
        labels = [f"{name}={alert.labels.get(name, '')}" for name in
                  self.desk.config.respond.group_by]  # fmt: skip
        return f"labels:{','.join(labels)}"

    def _begin(self, incident: Incident) -> None:
        """Begin the runbooks that may begin by themselves and are for this incident, once.

        And once more where the incident was opened again after they had ended.
        """
        since = incident.reopened or 0.0
        begun = {
            step.runbook
            for step in self.desk.incidents.steps(incident.id)
            if step.state in _UNDER_WAY or (step.ended or 0.0) >= since
        }
        alert, campaign = first_alert(self.desk, incident), self.desk.campaign(incident)
        for name in self.desk.config.respond.automatic:
            if name in begun or is_over(self.desk, incident):
                continue
            if self._runbooks[name].when.fits(incident, campaign, alert):
                try:
                    run_runbook(
                        self.desk, incident.id, name, who=WHO, role="system", since=since,
                        tell=self._tell,
                    )  # fmt: skip
                except OperationError:
                    # Another responder has it in hand.
                    continue

    def _look(self, incident: Incident) -> None:
        """Say once that an incident is over; to resolve it is for a person."""
        if incident.state != "open" or not is_over(self.desk, incident):
            return
        waiting = [
            step for step in self.desk.incidents.steps(incident.id)
            if step.state in _UNDER_WAY
        ]  # fmt: skip
        if waiting:
            return
        now = time.time()
        alert = first_alert(self.desk, incident)
        began = incident.opened if alert is None else alert.starts
        # Nobody may have looked for long.
        ends = [
            one.ends for one in self.desk.alerts.ended(began)
            if one.ends is not None and one.fingerprint in incident.alerts
        ]  # fmt: skip
        ended = min(now, max(ends, default=now))
        recovered(self.desk, incident, ended)
        self.desk.incidents.advance(
            incident.id,
            Entry(wall=now, who=WHO, kind="over",
                  text="all its alerts have ended, and no step is left"),
            Act(who=WHO, role="system", action="mitigated", about=f"incident:{incident.id}"),
            state="mitigated",
            mitigated=ended,
        )  # fmt: skip


def open_incident(
    desk: Desk,
    title: str,
    *,
    who: str,
    severity: Severity = "ticket",
    model: str = "",
    campaign: str = "",
    role: str = "responder",
) -> Incident:
    """An incident on a person's word, about a campaign or none; raises OperationError.

    A campaign has one incident: the one that is open already is returned.
    """
    if campaign:
        found = desk.alerts.campaign(campaign)
        if found is None:
            raise OperationError(f"there is no campaign {one_line(campaign, 60)!r}; leave it out")
        model = model or found.model
    return desk.incidents.begin(
        one_line(title, 200), severity, model=model, campaign=campaign, who=who, role=role
    )


def resolve(desk: Desk, identity: int, *, who: str, why: str, role: str = "responder") -> Incident:
    """Close an incident, on a person's word; raises OperationError where steps are under way."""
    incident = desk.incidents.get(identity)
    if incident.state == "resolved":
        return incident
    running = [step for step in desk.incidents.steps(identity) if step.state == "running"]
    if running:
        raise OperationError(
            f"step {running[0].number} of incident {identity} is running; wait for its end, see "
            f"`withstand incident show {identity}`"
        )
    now = time.time()
    return desk.incidents.advance(
        identity,
        Entry(wall=now, who=who, kind="resolve", text=why),
        Act(who=who, role=role, action="resolve", about=f"incident:{identity}",
            detail={"why": why}),
        state="resolved",
        resolved=now,
    )  # fmt: skip


def _title(alert: Alert) -> str:
    told = alert.annotations.get("summary") or alert.annotations.get("description")
    model = alert.labels.get("model", "")
    return one_line(told or f"{alert.name}{f' on {model}' if model else ''}", 200)


def note(desk: Desk, identity: int, text: str, *, who: str, role: str = "responder") -> None:
    """Add a person's line to an incident's timeline."""
    desk.incidents.advance(
        identity,
        Entry(wall=time.time(), who=who, kind="note", text=text),
        Act(who=who, role=role, action="note", about=f"incident:{identity}"),
    )


def review(
    desk: Desk,
    fingerprint: str,
    verdict: str,
    *,
    who: str,
    role: str = "responder",
    why: str = "",
    label: int | None = None,
) -> Review:
    """Write down what a flagged input really is, in the corpus too; label: its true class.

    Raises OperationError for a fingerprint that the evidence does not know, and another verdict;
    CorpusError where the corpus cannot be written.
    """
    if verdict not in ("adversarial", "benign"):
        raise OperationError(f"verdict is {verdict!r}; it is adversarial or benign")
    found = first_record(desk.evidence, fingerprint)
    if found is None:
        raise OperationError(
            f"no decision has the fingerprint {fingerprint[:64]!r}; see `withstand evidence show`"
        )
    desk.audit.add(
        Act(who=who, role=role, action=f"review {verdict}", about=f"input:{fingerprint}",
            detail={"why": why, "label": label})
    )  # fmt: skip
    word: Verdict = "adversarial" if verdict == "adversarial" else "benign"
    said = desk.reviews.put(fingerprint, word, who, seq=found.seq, why=why, label=label)
    tell_corpus(desk, said)
    return said
