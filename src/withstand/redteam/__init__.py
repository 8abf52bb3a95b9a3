"""Attacks with permission, on an endpoint in service."""

from ._brakes import STOP, Brakes, HaltError, RefusedError
from ._campaign import Campaign, Guarded, Site
from ._coverage import Covered, coverage
from ._impact import Impact, Watched
from ._purse import CapError, InputSpentError, Purse
from ._results import Found, Results
from ._runs import Run, Runs, RunState
from ._scope import Scope, Window, parse_scope
from ._signature import SUFFIX, Signed, make_key, read_scope, sign
from ._site import open_campaign, signed_scope
from ._stop import lift, stop
from ._watch import watch

__all__ = [
    "STOP",
    "SUFFIX",
    "Brakes",
    "Campaign",
    "CapError",
    "Covered",
    "Found",
    "Guarded",
    "HaltError",
    "Impact",
    "InputSpentError",
    "Purse",
    "RefusedError",
    "Results",
    "Run",
    "RunState",
    "Runs",
    "Scope",
    "Signed",
    "Site",
    "Watched",
    "Window",
    "coverage",
    "lift",
    "make_key",
    "open_campaign",
    "parse_scope",
    "read_scope",
    "sign",
    "signed_scope",
    "stop",
    "watch",
]
