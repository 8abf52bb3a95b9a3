"""The section that says how a new version of a model is let in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ._section import Section, wrong
from ._url import Url
from ._values import Count, Positive, Share

Sli = Literal["fooled", "wrong", "errors", "slow", "flagged", "unsure", "labels"]
_COMPARED: tuple[Sli, ...] = ("fooled", "errors", "slow")


class MarginConfig(Section):
    """What is worse: a share of at least `ratio` x the control arm's + `more`."""

    ratio: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = Field(
        default=None, description="times the control arm's share; labels 1, else 2 if absent"
    )
    more: Share | None = Field(
        default=None,
        description="on top of that; errors and wrong 0.01, labels 0.1, else 0 if absent",
    )
    most: Share | None = Field(
        default=None,
        description="the canary's own share must be shown to be below; fooled 0.5, errors 0.05, "
        "else 1, which is no limit, if absent",
    )
    least: Count | None = Field(
        default=None,
        description="so many pairs at least; fooled and wrong 50 in all, others 200 at each step, "
        "if absent",
    )


class CanaryConfig(Section):
    """A new version of a model, and how it is let in."""

    upstream: Url = Field(
        description="server of the new version", examples=["http://127.0.0.1:8082"]
    )
    version: str = Field(default="", description="its version, for evidence")
    weights: str = Field(default="", description="digest of its weights, for evidence")
    steps: list[Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]] = Field(
        default=[5, 10, 25, 50, 100], description="percent of the traffic, one step after the other"
    )
    by: Literal["key", "input"] = Field(
        default="key",
        description="who stays on an arm: a client, or an input, whoever asks; inputs where open",
    )
    compare: dict[Sli, MarginConfig] = Field(
        default_factory=lambda: dict.fromkeys(_COMPARED, MarginConfig()),
        description="what is compared, all of it needed: fooled and wrong by probes; by traffic "
        "errors, slow, flagged, unsure (answers of low confidence) and labels (each class's share, "
        "up or down); fooled, errors and slow if absent",
    )  # fmt: skip
    slow_seconds: Positive | None = Field(
        default=None,
        description="an answer is slow from so many seconds on; what a tenth of the control arm's "
        "first 100 answers took if absent",
    )
    alpha: Annotated[Share, Field(gt=0, lt=0.5)] = Field(
        default=0.05,
        description="how likely a version that is worse may be let on, over all looks and steps; "
        "and one that is not be rolled back",
    )
    step_seconds: Positive = Field(default=300.0, description="seconds that a step takes at least")
    patience_seconds: Positive = Field(
        default=86_400.0, description="seconds after which a step without a verdict is given up"
    )
    late: Literal["hold", "rollback"] = Field(
        default="hold", description="what becomes of it then: frozen at its weight, or rolled back"
    )
    failures: Count = Field(
        default=10, description="so many failures of the canary in a row: rolled back at once"
    )

    @model_validator(mode="after")
    def _fits(self) -> CanaryConfig:
        steps = self.steps
        if not steps or steps != sorted(set(steps)) or steps[-1] != 100 or len(steps) > 20:
            raise wrong(
                "steps",
                f"are {', '.join(f'{one:g}' for one in steps) or 'none'}; give at most 20 rising "
                "percentages, the last one 100",
            )
        if not self.compare:
            raise wrong("compare", "is empty; name at least one of fooled, wrong, errors, slow")
        if "labels" in self.compare and self.compare["labels"].most is not None:
            raise wrong("compare", "labels: most is for what is bad in itself; take it out")
        if self.patience_seconds < self.step_seconds:
            raise wrong("patience_seconds", "is below step_seconds; raise it")
        return self
