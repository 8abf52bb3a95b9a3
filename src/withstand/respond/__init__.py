"""What is done about alerts: incidents, runbooks, replay, postmortems."""

from ._incidents import Entry, Incident, Incidents, State, Step, StepState
from ._reviews import Review, Reviews, Verdict

__all__ = [
    "Entry",
    "Incident",
    "Incidents",
    "Review",
    "Reviews",
    "State",
    "Step",
    "StepState",
    "Verdict",
]
