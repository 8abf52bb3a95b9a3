"""A new version of a model, let in step by step beside the stable one, or rolled back."""

from ._canary import Canary
from ._judge import Judgement, Verdict, judge, overall
from ._labels import Labels
from ._probe import Batch, Prober, Probes
from ._rollout import Rollout, State
from ._rollouts import Rollouts
from ._settings import MARGINS, PROBED, SEEN, Margin, Settings
from ._tally import CANARY, CONTROL, SECONDS, STABLE, Arm, Tally

__all__ = [
    "CANARY",
    "CONTROL",
    "MARGINS",
    "PROBED",
    "SECONDS",
    "SEEN",
    "STABLE",
    "Arm",
    "Batch",
    "Canary",
    "Judgement",
    "Labels",
    "Margin",
    "Prober",
    "Probes",
    "Rollout",
    "Rollouts",
    "Settings",
    "State",
    "Tally",
    "Verdict",
    "judge",
    "overall",
]
