"""The guard: what stands in front of a served model and looks at every request."""

from ._access import Access
from ._app import App
from ._guard import Guard
from ._journal import Journal
from ._keys import Key, Keys
from ._ladder import ACTIONS, Ladder, Mode, Standing
from ._lines import Line, Rule
from ._message import Answer, Request, Upstream, UpstreamError
from ._metrics import Metrics
from ._quota import Quota, Rate
from ._sensor import Call, Sensor, Signal

__all__ = [
    "ACTIONS",
    "Access",
    "Answer",
    "App",
    "Call",
    "Guard",
    "Journal",
    "Key",
    "Keys",
    "Ladder",
    "Line",
    "Metrics",
    "Mode",
    "Quota",
    "Rate",
    "Request",
    "Rule",
    "Sensor",
    "Signal",
    "Standing",
    "Upstream",
    "UpstreamError",
]
