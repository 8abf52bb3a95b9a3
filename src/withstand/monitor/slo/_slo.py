"""What is promised, and the rules that tell early that it will not be kept."""

from __future__ import annotations

from dataclasses import dataclass

from ..._errors import ConfigError
from ...config import MonitorConfig
from ..store import Severity
from ._slis import SLIS

MINUTE, HOUR, DAY = 60, 3600, 86_400


@dataclass(frozen=True, kw_only=True)
class Slo:
    """A promise about an SLI: a share of good events, or a number of bad ones, in so many days.

    model: empty for all. least: bad events in a rule's long window without which it says nothing.
    Raises ConfigError.
    """

    name: str
    sli: str
    objective: float | None = None
    budget: int | None = None
    days: float = 30.0
    model: str = ""
    least: int = 5

    def __post_init__(self) -> None:
        if self.sli not in SLIS or SLIS[self.sli].kind != "share":
            shares = ", ".join(name for name, sli in SLIS.items() if sli.kind == "share")
            raise ConfigError(f"SLO {self.name} is about {self.sli}; give one of {shares}")
        if (self.objective is None) == (self.budget is None):
            raise ConfigError(f"SLO {self.name} needs an objective or a budget; give one of them")
        if self.objective is not None and not 0 < self.objective < 1:
            raise ConfigError(
                f"SLO {self.name} has the objective {self.objective:g}; give above 0 and below 1"
            )
        if self.days <= 0:
            raise ConfigError(f"SLO {self.name} is about {self.days:g} days; give above 0")
        if self.budget is not None and self.budget < 1:
            raise ConfigError(f"SLO {self.name} has a budget of {self.budget}; give at least 1")

    @property
    def seconds(self) -> float:
        """How long it is about."""
        return self.days * DAY

    def allowed(self, events: int) -> float:
        """Bad events that so many events may have."""
        if self.budget is not None:
            return float(self.budget)
        assert self.objective is not None
        return (1 - self.objective) * events

    def burn(self, bad: float, events: float, seconds: float) -> float | None:
        """How fast the budget is spent in a window, 1 for just as fast as it may; None for no data.

        A count budget is spent by bad events however many good ones there are, so that it burns at
        0 where there are none.
        """
        if self.budget is not None:
            return bad / (self.budget * seconds / self.seconds)
        assert self.objective is not None
        return bad / events / (1 - self.objective) if events else None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Tells that a share of the budget was spent within a long window, and still is in a short one.

    Windows in seconds. Both must burn faster than `above`; the short one ends the alert soon after
    the trouble has ended.
    """

    name: str
    severity: Severity
    share: float
    long: int
    short: int

    def above(self, slo: Slo) -> float:
        """The burn rate that both windows must exceed: at least the one that spends all of it."""
        return max(1.0, self.share * slo.seconds / self.long)


RULES: tuple[Rule, ...] = (
    Rule(name="1h", severity="page", share=0.02, long=HOUR, short=5 * MINUTE),
    Rule(name="6h", severity="page", share=0.05, long=6 * HOUR, short=30 * MINUTE),
    Rule(name="1d", severity="ticket", share=0.1, long=DAY, short=2 * HOUR),
    Rule(name="3d", severity="ticket", share=0.1, long=3 * DAY, short=6 * HOUR),
)
"""Those of every SLO (Google's SRE workbook, chapter 5; its windows as Sloth has them)."""


def slos_of(config: MonitorConfig) -> list[Slo]:
    """The promises in withstand.yaml, in their order."""
    return [
        Slo(
            name=name, sli=told.sli, objective=told.objective, budget=told.budget, days=told.days,
            model=told.model, least=told.least,
        )
        for name, told in config.slos.items()
    ]  # fmt: skip


def unreachable(slo: Slo) -> list[str]:
    """The rules that can never fire, or only too late, one line each: value, limit and fix."""
    found = []
    for rule in RULES:
        above = rule.above(slo)
        if slo.objective is not None:
            most = 1 / (1 - slo.objective)
            # Even if every event is bad, the budget burns no faster than this.
            if above >= most * (1 - 1e-9):
                found.append(
                    f"SLO {slo.name}: rule {rule.name} ({rule.severity}) never fires: it needs a "
                    f"burn rate above {above:.3g}, and with objective {slo.objective:g} it cannot "
                    f"exceed {most:.3g}; raise the objective above {1 - 1 / above:.4g}, or give a "
                    "budget of events instead"
                )
        elif slo.budget is not None and slo.least > slo.budget:
            found.append(
                f"SLO {slo.name}: rule {rule.name} ({rule.severity}) needs {slo.least} bad events, "
                f"and the budget is {slo.budget}; it fires only when all of it is spent, so lower "
                f"least to {max(1, slo.budget // 2)}"
            )
    return found
