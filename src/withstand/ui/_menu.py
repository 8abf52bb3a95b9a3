"""What leads where."""

from __future__ import annotations

MENU = (
    ("Now", (("overview", "/", "Overview"), ("oncall", "/oncall", "On call"),
             ("incidents", "/incidents", "Incidents"))),
    ("Look closer", (("clients", "/clients", "Clients & campaigns"),
                     ("review", "/review", "Quarantine review"))),
    ("Models", (("models", "/models", "Models & canary"),
                ("detectors", "/detectors", "Detectors & SLOs"),
                ("redteam", "/redteam", "Red team & coverage"))),
    ("Records", (("evidence", "/evidence", "Evidence"), ("audit", "/audit", "Audit log"),
                 ("users", "/users", "People"))),
)  # fmt: skip
"""Groups of pages: what a page calls itself, its address, and its name."""
