"""What operations know: observations, alerts, campaigns, and who did what."""

from ._alerts import Alert, Alerts, Campaign, Severity
from ._audit import Act, Audit
from ._observations import Observation, Observations
from ._store import Store

__all__ = [
    "Act",
    "Alert",
    "Alerts",
    "Audit",
    "Campaign",
    "Observation",
    "Observations",
    "Severity",
    "Store",
]
