"""What operations know: observations, alerts, campaigns, and who did what."""

from ._alerts import Alert, Alerts, Campaign, Severity
from ._audit import Act, Audit
from ._counts import BUCKET, Bucket, Counts, Moments
from ._memory import Memory
from ._observations import Observation, Observations
from ._store import Store

__all__ = [
    "BUCKET",
    "Act",
    "Alert",
    "Alerts",
    "Audit",
    "Bucket",
    "Campaign",
    "Counts",
    "Memory",
    "Moments",
    "Observation",
    "Observations",
    "Severity",
    "Store",
]
