"""Runbooks on incidents: one step after the other, each once, whoever is killed meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any, Literal

from pydantic import ValidationError

from .._errors import OperationError, WithstandError, listed, one_line
from ..monitor import Act, Alert, Observation
from ._desk import Desk
from ._guard_client import UnansweredError
from ._incidents import Entry, Incident, Step
from .action import Action, Case, Outcome, actions
from .runbook import Runbook, resolved
from .runbook import runbooks as read_runbooks

_log = logging.getLogger("withstand.respond")
Moment = Literal["begun", "acted", "noted"]
Tell = Callable[[Moment, Step], None]
"""Told of a step when it is about to act, when it has, and when that is written down."""

# A responder's pass over an incident is short, and a person can wait for its end.
_PATIENCE = 5.0
_ENDED = ("done", "failed", "skipped")


def runbooks(desk: Desk) -> dict[str, Runbook]:
    """The built-in runbooks and the configured folder's, by name."""
    return read_runbooks(desk.root / desk.config.respond.runbooks)


def dry_run(desk: Desk, identity: int, name: str) -> list[str]:
    """What a runbook would do on an incident, a line for each effect; nothing is touched."""
    incident, runbook = desk.incidents.get(identity), _runbook(desk, name)
    known, said = actions(), []
    for step in _planned(runbook, len(desk.incidents.steps(identity))):
        asked = ", after approval" if step.approval else ""
        head = f"{step.number}. {step.name} ({step.action}{asked})"
        try:
            action = _action(known, step)
            given = _arguments(desk, incident, step)
            case = _case(desk, incident, replace(step, arguments=given), who="nobody")
            said += [f"{head}: {line}" for line in action.plan(case, action.told(**given))]
        except WithstandError as error:
            said.append(f"{head}: would fail: {error}")
    return said


def run_runbook(
    desk: Desk,
    identity: int,
    name: str,
    *,
    who: str,
    role: str = "responder",
    again: bool = False,
    since: float = 0.0,
    tell: Tell | None = None,
) -> list[Step]:
    """Begin a runbook on an incident, or go on with it, as far as it goes; its steps.

    It goes as far as the first step that waits: for approval, for a job, or for a guard that does
    not answer. again: from the beginning where it has come to its end; since: so too where that was
    before this time (seconds since 1970). Raises OperationError.
    """
    runbook = _runbook(desk, name)
    with _alone(desk, identity):
        incident = desk.incidents.get(identity)
        if incident.state == "resolved":
            raise OperationError(f"incident {identity} is resolved; nothing is done about it now")
        before = desk.incidents.steps(identity)
        mine = [step for step in before if step.runbook == name]
        last = [step for step in mine if step.run == mine[-1].run]
        over = all(step.state in _ENDED for step in last)
        old = all((step.ended or 0.0) < since for step in last)
        if not last or (over and (again or old)):
            last = _planned(runbook, len(before))
            desk.incidents.advance(
                identity,
                Entry(wall=time.time(), who=who, kind="runbook", text=f"runbook {name} begins"),
                Act(who=who, role=role, action=f"run {name}", about=f"incident:{identity}"),
                steps=last,
            )
        _advance(desk, identity, last[0].run, who, role, tell)
    return [step for step in desk.incidents.steps(identity) if step.run == last[0].run]


def go_on(desk: Desk, identity: int, *, who: str = "responder", tell: Tell | None = None) -> bool:
    """Go on with all runbooks begun on an incident; False where somebody else is at it."""
    with desk.alone(identity) as mine:
        if mine:
            for run, _ in groupby(desk.incidents.steps(identity), key=lambda step: step.run):
                _advance(desk, identity, run, who, "system", tell)
    return mine


def approve(
    desk: Desk,
    identity: int,
    number: int,
    *,
    who: str,
    role: str = "responder",
    agreed: bool = True,
    tell: Tell | None = None,
) -> Step:
    """Agree to a step that asks for it, or decline it, and go on; the step as it then is.

    One that is declined is skipped and has not failed: the next one is taken in any case.
    Raises OperationError for a step that does not wait for anybody.
    """
    with _alone(desk, identity):
        step = next((one for one in desk.incidents.steps(identity) if one.number == number), None)
        if step is None or not step.approval or step.state not in ("pending", "approval"):
            state = "is not there" if step is None else f"is {step.state}"
            raise OperationError(
                f"step {number} of incident {identity} {state} and asks for no approval; see "
                f"`withstand incident show {identity}`"
            )
        word = "approve" if agreed else "decline"
        new = replace(step, approved=who, state="pending") if agreed else replace(
            step, state="skipped", ended=time.time(), result=f"declined by {who}"
        )  # fmt: skip
        desk.incidents.advance(
            identity,
            Entry(wall=time.time(), who=who, kind=word, text=f"step {number}: {step.name}"),
            Act(who=who, role=role, action=f"{word} step", about=f"incident:{identity}",
                detail={"step": number, "action": step.action}),
            steps=[new],
        )  # fmt: skip
        _advance(desk, identity, step.run, who, role, tell)
    return next(one for one in desk.incidents.steps(identity) if one.number == number)


def first_alert(desk: Desk, incident: Incident) -> Alert | None:
    """The alert that opened an incident, None where a person did."""
    for entry in desk.incidents.timeline(incident.id):
        if entry.kind == "alert":
            found = Alert(
                labels=entry.detail["labels"], annotations=entry.detail["annotations"],
                starts=entry.wall, campaign=incident.campaign,
            )  # fmt: skip
            # One that joins later may have begun earlier.
            if found.fingerprint == incident.alerts[0]:
                return found
    return None


def is_over(desk: Desk, incident: Incident) -> bool:
    """Whether what an incident is about has ended, so that nothing is to be held up any more."""
    if incident.state == "resolved":
        return True
    campaign = desk.campaign(incident)
    if not incident.alerts or (campaign is not None and campaign.open):
        return False
    return all(desk.alerts.open(one) is None for one in incident.alerts)


def _advance(desk: Desk, identity: int, run: int, who: str, role: str, tell: Tell | None) -> None:
    """Take the steps of a run that are to be taken, up to the first that waits."""
    known = actions()
    failed: Step | None = None
    for step in [one for one in desk.incidents.steps(identity) if one.run == run]:
        if step.state == "failed" and not step.goes_on:
            failed = step
        if step.state in _ENDED:
            continue
        incident = desk.incidents.get(identity)
        if failed is not None:
            _end(desk, incident, step, who, role, "skipped", f"step {failed.number} has failed")
            continue
        if incident.state == "resolved":
            _end(desk, incident, step, who, role, "skipped", "the incident is resolved")
            continue
        action = known.get(step.action)
        if action is not None and action.contains and is_over(desk, incident):
            _end(desk, incident, step, who, role, "skipped", "its reason is over")
            continue
        if step.approval and not step.approved:
            if step.state != "approval":
                _wait(desk, incident, step, who, role)
            return
        ended = _take(desk, incident, step, who, role, known, tell)
        if ended is None:
            return
        if ended.state == "failed" and not ended.goes_on:
            failed = ended


def _take(
    desk: Desk, incident: Incident, step: Step, who: str, role: str,
    known: dict[str, Action[Any]], tell: Tell | None,
) -> Step | None:  # fmt: skip
    """Take one step; None where it waits."""
    resumed = step.state == "running"
    told = tell or (lambda moment, step: None)
    # On whose word it is done: who has agreed, if somebody had to.
    who = step.approved or who
    try:
        action = _action(known, step)
        if not resumed:
            given = _arguments(desk, incident, step)
            step = replace(step, state="running", began=time.time(), arguments=given)
            desk.incidents.advance(
                incident.id,
                Entry(wall=time.time(), who=who, kind="step", text=f"{_called(step)} begins"),
                Act(who=who, role=role, action=step.action, about=f"incident:{incident.id}",
                    detail={"step": step.number, "arguments": step.arguments}),
                steps=[step],
            )  # fmt: skip
        told("begun", step)
        case = _case(desk, incident, step, who=who, resumed=resumed)
        late = time.time() - (step.began or 0.0) > step.timeout
        try:
            outcome = action.act(case, action.told(**step.arguments))
        except UnansweredError as error:
            outcome = Outcome(state="waiting", text=str(error))
        if outcome.state == "waiting" and late:
            action.stop(case)
            text = f"not done within {step.timeout:g} seconds: {outcome.text}"
            outcome = Outcome(state="failed", text=text)
    except (WithstandError, ValidationError) as error:
        outcome = Outcome(state="failed", text=one_line(error, 500))
    except Exception as error:
        # An action may be anybody's, and its mistakes must not end the responder.
        _log.exception("%s of incident %d failed", _called(step), incident.id)
        outcome = Outcome(state="failed", text=f"{type(error).__name__}: {one_line(error)}")
    told("acted", step)
    if outcome.state == "waiting":
        desk.incidents.put_step(incident.id, replace(step, result=outcome.text))
        return None
    ended = _end(desk, incident, step, who, role, outcome.state, outcome.text, outcome.detail)
    told("noted", ended)
    return ended


def _end(
    desk: Desk, incident: Incident, step: Step, who: str, role: str,
    state: Literal["done", "failed", "skipped"], text: str, detail: dict[str, Any] | None = None,
) -> Step:  # fmt: skip
    now = time.time()
    ended = replace(step, state=state, began=step.began or now, ended=now, result=text)
    contained = state == "done" and step.contains and incident.state == "open"
    # Told before it is written down: an observation counts once, and must not be missing.
    if contained:
        recovered(desk, incident, now)
    desk.incidents.advance(
        incident.id,
        Entry(wall=now, who=who, kind="step", text=f"{_called(step)}: {state}: {text}",
              detail=detail or {}),
        Act(who=who, role=role, action=f"{step.action} {state}", about=f"incident:{incident.id}",
            detail={"step": step.number, "result": text}),
        steps=[ended],
        **({"state": "mitigated", "mitigated": now} if contained else {}),
    )  # fmt: skip
    return ended


def recovered(desk: Desk, incident: Incident, now: float) -> None:
    """Write down M9: the seconds from the page to when the attack had no effect any more."""
    alert = first_alert(desk, incident)
    began = incident.opened if alert is None else alert.starts
    source = f"incident:{incident.id}:mitigated"
    if incident.reopened is not None:
        # Each time that it had an effect is one to recover from.
        began, source = incident.reopened, f"{source}:{incident.reopened}"
    desk.observations.add(
        [
            Observation(
                sli="M9", wall=now, source=source,
                value=max(0.0, now - began), model=incident.model,
            )
        ]
    )  # fmt: skip


def _wait(desk: Desk, incident: Incident, step: Step, who: str, role: str) -> None:
    desk.incidents.advance(
        incident.id,
        Entry(wall=time.time(), who=who, kind="approval",
              text=f"{_called(step)} waits for approval"),
        Act(who=who, role=role, action="ask for approval", about=f"incident:{incident.id}",
            detail={"step": step.number}),
        steps=[replace(step, state="approval")],
    )  # fmt: skip


def _planned(runbook: Runbook, before: int) -> list[Step]:
    return [
        Step(
            number=number,
            run=before + 1,
            runbook=runbook.name,
            name=one.name,
            action=one.action,
            arguments=one.arguments,
            approval=one.approval,
            contains=one.contains,
            goes_on=one.on_failure == "continue",
            timeout=one.timeout,
        )
        for number, one in enumerate(runbook.steps, before + 1)
    ]


def _case(desk: Desk, incident: Incident, step: Step, *, who: str, resumed: bool = False) -> Case:
    campaign = desk.campaign(incident)
    return Case(
        desk=desk, incident=incident, campaign=campaign, step=step, who=who, resumed=resumed
    )


def _arguments(desk: Desk, incident: Incident, step: Step) -> dict[str, Any]:
    found: dict[str, Any] = resolved(
        step.arguments, incident, desk.campaign(incident), first_alert(desk, incident)
    )
    return found


def _action(known: dict[str, Action[Any]], step: Step) -> Action[Any]:
    if step.action not in known:
        raise OperationError(
            f"action {step.action!r} is not installed any more; the actions are {listed(known, 30)}"
        )
    return known[step.action]


def _runbook(desk: Desk, name: str) -> Runbook:
    known = runbooks(desk)
    if name not in known:
        raise OperationError(f"there is no runbook {name!r}; they are {listed(known, 20)}")
    return known[name]


def _called(step: Step) -> str:
    return f"step {step.number}, {step.name}"


@contextmanager
def _alone(desk: Desk, identity: int) -> Iterator[None]:
    with desk.alone(identity, _PATIENCE) as mine:
        if not mine:
            raise OperationError(
                f"somebody else is at work on incident {identity}; try again in a moment"
            )
        yield
