"""How well the model withstands, told while it is in service: SLIs, burn rates, alerts."""

from ._check import warnings
from ._figures import Figure, figures
from ._monitor import Look, Monitor
from ._silences import Silence, Silences
from ._status import SloStatus, status
from ._vouching import SIGNING
from .follow import Followed, Follower
from .slo import RULES, SLIS, Burn, Rule, Sli, Slo, Tally, burns, slos_of, unreachable
from .store import (
    Act,
    Alert,
    Alerts,
    Audit,
    Bucket,
    Campaign,
    Counts,
    Memory,
    Observation,
    Observations,
    Severity,
    Store,
)

__all__ = [
    "RULES",
    "SIGNING",
    "SLIS",
    "Act",
    "Alert",
    "Alerts",
    "Audit",
    "Bucket",
    "Burn",
    "Campaign",
    "Counts",
    "Figure",
    "Followed",
    "Follower",
    "Look",
    "Memory",
    "Monitor",
    "Observation",
    "Observations",
    "Rule",
    "Severity",
    "Silence",
    "Silences",
    "Sli",
    "Slo",
    "SloStatus",
    "Store",
    "Tally",
    "burns",
    "figures",
    "slos_of",
    "status",
    "unreachable",
    "warnings",
]
