"""One module for each job; the routes of all of them."""

from . import (
    _clients,
    _detectors,
    _evidence,
    _incidents,
    _mitigations,
    _models,
    _oncall,
    _overview,
    _people,
    _redteam,
    _review,
    _samples,
)
from ._people import login_page

__all__ = ["PAGES", "login_page"]

PAGES = (
    *_overview.ROUTES,
    *_oncall.ROUTES,
    *_mitigations.ROUTES,
    *_incidents.ROUTES,
    *_clients.ROUTES,
    *_samples.ROUTES,
    *_review.ROUTES,
    *_models.ROUTES,
    *_detectors.ROUTES,
    *_redteam.ROUTES,
    *_evidence.ROUTES,
    *_people.ROUTES,
)
"""Every address that somebody who is logged in may ask; GET shows, POST does."""
