"""What a rollout goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

PROBED: Final = ("fooled", "wrong")
"""What probes show: adversarial inputs that fool it, clean inputs it is wrong about."""
SEEN: Final = ("errors", "slow", "flagged", "unsure", "labels")
"""What the traffic shows: failures, slow answers, flags of sensors, answers of low confidence, and
how often each class is answered.
"""


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Worse is a share of at least `ratio` x the control arm's + `more`.

    most: what the canary's own share must be shown to be below, 1 for no limit. least: pairs. Of
    labels, each class is compared, and either arm may have more of it.
    """

    ratio: float = 2.0
    more: float = 0.0
    most: float = 1.0
    least: int = 200


MARGINS: Final = MappingProxyType(
    {
        "fooled": Margin(most=0.5, least=50),
        "wrong": Margin(more=0.01, least=50),
        "errors": Margin(more=0.01, most=0.05),
        "slow": Margin(),
        "flagged": Margin(),
        "unsure": Margin(),
        "labels": Margin(ratio=1.0, more=0.1),
    }
)
"""What counts where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a version is let in: steps in percent, the last one 100, and what is compared.

    by_input: an input stays on its arm, whoever asks; else a client does. slow: seconds. alpha: how
    likely a worse one is let on, over all looks and steps together, and one that is not is rolled
    back. least: seconds that a step takes; patience: seconds after which it is given up: held, or
    rolled back. failures: of the canary in a row, with which it is rolled back at once.
    """

    steps: tuple[float, ...] = (5, 10, 25, 50, 100)
    margins: Mapping[str, Margin] = field(
        default_factory=lambda: {name: MARGINS[name] for name in ("fooled", "errors", "slow")}
    )
    by_input: bool = False
    slow: float | None = None
    alpha: float = 0.05
    least: float = 300.0
    patience: float = 86_400.0
    hold: bool = True
    failures: int = 10
