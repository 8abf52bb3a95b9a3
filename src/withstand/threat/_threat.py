"""The threat model and what an evaluation of it may spend."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_
from typing import Any, Literal, get_args

from .._errors import BudgetError, ThreatError, one_line
from ._goal import Goal, Untargeted
from ._region import Box, Region, _Ball

Access = Literal["gradients", "scores", "labels", "none"]
ACCESS: tuple[str, ...] = get_args(Access)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an evaluation may spend: forwards and backwards for each sample, seconds in all."""

    forwards: int | None = None
    backwards: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("forwards", self.forwards),
            ("backwards", self.backwards),
            ("seconds", self.seconds),
        ):
            if value is not None and not value > 0:
                raise BudgetError(
                    f"budget {name} is {value}; give more than 0, or leave it out for no limit"
                )


@dataclass(frozen=True, kw_only=True)
class Threat:
    """Who attacks: what they change (region), want (goal), see (access), how often they ask.

    region: one with a norm, or one that limits changes by itself, as a table's capability does.
    queries: the most model queries the attacker can spend on one sample; None means no limit.
    """

    region: Region
    goal: Goal = field(default_factory=Untargeted)
    access: Access = "gradients"
    queries: int | None = None

    def __post_init__(self) -> None:
        if self.access not in ACCESS:
            raise ThreatError(f"access is {self.access!r}; it is one of {', '.join(ACCESS)}")
        if not isinstance(self.region, Region):
            raise ThreatError(
                f"region is {one_line(repr(self.region), 60)}; give one, such as Linf(8 / 255)"
            )
        if not callable(getattr(self.goal, "margin", None)):
            raise ThreatError(
                f"goal is {one_line(repr(self.goal), 60)}; give one, such as Targeted(3)"
            )
        if self.queries is not None and (self.queries < 1 or self.queries != int(self.queries)):
            raise BudgetError(
                f"queries is {self.queries}; give a whole number of at least 1, or None for no "
                "limit"
            )
        if not any(isinstance(part, _Ball) for part in self.region):
            implied = [ball for part in self.region if (ball := part.implied) is not None]
            if not implied:
                raise ThreatError(
                    "the region has no norm; add one of Linf, L2, L1, L0 to it with &"
                )
            object.__setattr__(self, "region", implied[0] & self.region)

    @property
    def norm(self) -> str:
        """The norm that distances are told in: that of the region's first ball."""
        return next(part.name for part in self.region if isinstance(part, _Ball))

    @property
    def bounded(self) -> bool:
        """Whether the first ball has a finite radius.

        Where it has none, minimum-norm attacks ask how small a change suffices; others take what a
        mask and the model's domain leave, and refuse a region without a mask.
        """
        import numpy as np

        ball = next(part for part in self.region if isinstance(part, _Ball))
        return bool(np.isfinite(ball.eps).all())

    def unbounded(self) -> Threat:
        """The same threat with infinite radii: the question becomes how small a change suffices."""
        parts = [p.unbounded() if isinstance(p, _Ball) else p for p in self.region]
        return replace(self, region=reduce(and_, parts))

    def take(self, rows: Any) -> Threat:
        """The threat to some samples only."""
        return replace(self, region=self.region.take(rows))

    def within(self, box: Box) -> Threat:
        """The same threat, its region cut to a model's domain."""
        return replace(self, region=self.region & box)

    def describe(self) -> dict[str, Any]:
        """The threat as plain values, for reports."""
        ball = next(part for part in self.region if isinstance(part, _Ball))
        eps = ball.eps if isinstance(ball.eps, float) else [float(e) for e in ball.eps]
        return {
            "goal": self.goal.describe(),
            "access": self.access,
            "norm": self.norm,
            "eps": eps,
            "region": self.region.describe(),
            "queries": self.queries,
        }
