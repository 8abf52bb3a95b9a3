"""The guard: what stands in front of a served model and looks at every request."""

from ._app import App
from ._guard import Guard
from ._journal import Journal
from ._ladder import ACTIONS, Ladder, Mode, Standing
from ._lines import Line, Rule
from ._message import Answer, Request, Upstream, UpstreamError
from ._metrics import Metrics
from ._mitigations import Mitigation, Mitigations
from ._openapi import openapi
from ._sensor import Call, Sensor, Signal
from .access import Access, Experiment, Experiments, Key, Keys, Quota, Rate, Secrets
from .inside import GuardFunction, GuardMiddleware, guard_from
from .journal import EvidenceJournal, JournalCounts, Redaction

__all__ = [
    "ACTIONS",
    "Access",
    "Answer",
    "App",
    "Call",
    "EvidenceJournal",
    "Experiment",
    "Experiments",
    "Guard",
    "GuardFunction",
    "GuardMiddleware",
    "Journal",
    "JournalCounts",
    "Key",
    "Keys",
    "Ladder",
    "Line",
    "Metrics",
    "Mitigation",
    "Mitigations",
    "Mode",
    "Quota",
    "Rate",
    "Redaction",
    "Request",
    "Rule",
    "Secrets",
    "Sensor",
    "Signal",
    "Standing",
    "Upstream",
    "UpstreamError",
    "guard_from",
    "openapi",
]
