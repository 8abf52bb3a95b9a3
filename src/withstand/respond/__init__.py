"""What is done about alerts: incidents, runbooks, replay, postmortems."""

from ._attribution import Attribution, Family
from ._desk import Desk
from ._guard_client import CanaryVerb, GuardClient, UnansweredError
from ._incidents import Entry, Incident, Incidents, State, Step, StepState
from ._job import Job
from ._postmortem import postmortem, write_postmortem
from ._replay import Replay, Shown, replay
from ._responder import Responder, note, open_incident, resolve, review
from ._reviews import Review, Reviews, Verdict
from ._run import approve, dry_run, go_on, run_runbook, runbooks
from ._to_corpus import Added, add_to_corpus
from .action import Action, Arguments, Case, Outcome, actions
from .runbook import Runbook, RunbookStep, When

__all__ = [
    "Action",
    "Added",
    "Arguments",
    "Attribution",
    "CanaryVerb",
    "Case",
    "Desk",
    "Entry",
    "Family",
    "GuardClient",
    "Incident",
    "Incidents",
    "Job",
    "Outcome",
    "Replay",
    "Responder",
    "Review",
    "Reviews",
    "Runbook",
    "RunbookStep",
    "Shown",
    "State",
    "Step",
    "StepState",
    "UnansweredError",
    "Verdict",
    "When",
    "actions",
    "add_to_corpus",
    "approve",
    "dry_run",
    "go_on",
    "note",
    "open_incident",
    "postmortem",
    "replay",
    "resolve",
    "review",
    "run_runbook",
    "runbooks",
    "write_postmortem",
]
