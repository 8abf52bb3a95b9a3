"""Who asks, whether they may, and how often: keys, quotas, and the guard's own secrets."""

from ._access import NOBODY, Access, within
from ._experiment import EXPERIMENT, Experiment, Experiments
from ._keys import Key, Keys
from ._mac import Mac
from ._quota import Quota, Rate
from ._secrets import Secrets

__all__ = [
    "EXPERIMENT",
    "NOBODY",
    "Access",
    "Experiment",
    "Experiments",
    "Key",
    "Keys",
    "Mac",
    "Quota",
    "Rate",
    "Secrets",
    "within",
]
