"""What one layer of a defended system adds, in figures and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..stats import Interval
from ._words import percent

Effect = Literal["adds", "adds nothing", "masks", "harms"]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a layer adds, on the same samples with it and without it.

    served: share of clean inputs that the system without it answers rightly and does not flag.
    clean, robust: by how much that share, and robust accuracy, are higher with it. stopped: the
    share that it alone stops of examples that fool the members without it, made by somebody who
    does not know of it. masks: whether it hides the gradient: such examples fool more often than
    those made through it, or there is nothing to follow through it. Both are None where examples
    cannot be made. flagged: share of clean inputs that a detector flags.
    """

    name: str
    kind: str
    served: Interval
    clean: Interval
    robust: Interval
    stopped: Interval | None = None
    masks: bool | None = None
    flagged: Interval | None = None

    @property
    def verdict(self) -> Effect:
        """masks wherever the gradient is hidden, else what the interval of `robust` says."""
        if self.masks:
            return "masks"
        if self.robust.low > 0:
            return "adds"
        return "harms" if self.robust.high < 0 else "adds nothing"

    @property
    def statement(self) -> str:
        """What the layer is good for, and what it costs, in a sentence."""
        parts = [self._effect()]
        if self.stopped is not None and self.stopped.n:
            parts.append(
                f"it stops {percent(self.stopped.value)} of the examples made by somebody who does "
                "not know of it"
            )
        if self.clean.high < 0:
            parts.append(f"it costs {_points(self.clean, -1)} of clean accuracy")
        if self.flagged is not None:
            parts.append(f"it flags {percent(self.flagged.value)} of clean inputs")
        return f"{self.name} {'; '.join(parts)}."

    def _effect(self) -> str:
        gain, includes = _points(self.robust), self.robust.low <= 0
        zero = f"{gain} of robust accuracy, and the interval includes zero"
        if self.verdict == "adds":
            return f"adds {gain} of robust accuracy"
        if self.verdict == "harms":
            return f"takes {_points(self.robust, -1)} of robust accuracy"
        if self.verdict == "adds nothing":
            return f"adds nothing that {self.robust.n} samples can show ({zero})"
        if includes:
            return f"only masks: it hides the gradient from attacks, and adds nothing ({zero})"
        return (
            f"masks: it hides the gradient from attacks; the {gain} of robust accuracy that it "
            "seems to add may be the attack's failure (attack through it, with Differentiable)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {
            key: value.to_dict() if isinstance(value, Interval) else value
            for key, value in vars(self).items()
        }
        return {**values, "verdict": self.verdict, "statement": self.statement}


def _points(gain: Interval, sign: int = 1) -> str:
    low, high = sorted((sign * gain.low, sign * gain.high))
    return f"{100 * sign * gain.value:.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
