"""How well the model withstands, told while it is in service: SLIs, burn rates, alerts."""

from .store import Act, Alert, Alerts, Audit, Campaign, Observation, Observations, Severity, Store

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
