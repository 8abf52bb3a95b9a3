"""Where decisions are kept, so that they can be proved: the evidence log and its vault."""

from ._event import Event, event_of_http, event_of_json
from ._evidence import EvidenceJournal, JournalCounts
from ._imports import ImportCounts, Imports
from ._redaction import Redaction
from ._sink import EventSink

__all__ = [
    "Event",
    "EventSink",
    "EvidenceJournal",
    "ImportCounts",
    "Imports",
    "JournalCounts",
    "Redaction",
    "event_of_http",
    "event_of_json",
]
