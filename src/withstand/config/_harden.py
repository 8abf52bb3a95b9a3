"""The section harden of withstand.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, model_validator

from ._data import DataConfig
from ._section import Section, wrong
from ._values import Count, Index, Positive, Share, Tolerance

Norm = Literal["linf", "l2", "l1", "l0"]
Recipe = Literal[
    "standard", "fgsm", "nfgsm", "pgd", "active", "trades", "tabular", "average", "worst",
    "alternating", "noise", "ibp", "crown_ibp", "mtl_ibp",
]  # fmt: skip
_UNATTACKED: tuple[Recipe, ...] = ("standard", "noise")
SEVERAL: tuple[Recipe, ...] = ("average", "worst", "alternating")
_ONLY_FOR: dict[str, tuple[Recipe, ...]] = {
    "norms": SEVERAL,
    "shares": ("alternating",),
    "random_start": ("pgd", "active", *SEVERAL),
    "beta": ("trades",),
    "calm": ("active",),
    "extra": ("active",),
    "awp": ("fgsm", "nfgsm", "pgd", "active", "trades", "average", "worst"),
    "sigma": ("noise",),
    "clean": ("ibp", "crown_ibp"),
    "share": ("mtl_ibp",),
}


class BallConfig(Section):
    """One more ball around each sample."""

    norm: Norm = Field(description="how a change is measured", examples=["l2"])
    eps: Positive = Field(description="radius in units of the raw input", examples=[0.5])
    random_start: StrictBool | None = Field(
        default=None, description="as harden.random_start, for this ball; that if absent"
    )
    step_size: Positive | None = Field(
        default=None, description="share of the radius in a step; 2.5 / steps if absent"
    )


class AwpConfig(Section):
    """Training at the worst weights nearby (adversarial weight perturbation)."""

    gamma: Tolerance = Field(
        default=0.005, description="how far each layer's weights move, as a share of their length"
    )
    start: Share = Field(
        default=0.0, description="share of the training before which they do not move"
    )


class HardenConfig(Section):
    """How the model is trained to withstand attack, within threat.region."""

    recipe: Recipe = Field(
        default="fgsm", description="what it is trained on; tabular is for data.table"
    )
    steps: Count | None = Field(
        default=None,
        description="pgd, active, trades, tabular, average, worst, alternating: steps of the "
        "attack that makes the points, 7 if absent; mtl_ibp: 1 if absent",
    )
    norms: list[BallConfig] = Field(
        default_factory=list,
        description="average, worst, alternating: the balls trained within besides threat.region",
    )
    shares: list[Positive] | None = Field(
        default=None,
        description="alternating: how often threat.region is drawn for a batch, then each of "
        "norms; alike if absent",
        examples=[[0.2, 0.8]],
    )
    random_start: StrictBool = Field(
        default=True,
        description="pgd, active, average, worst, alternating: begin at random points of the "
        "region, not at the samples",
    )
    beta: Tolerance | None = Field(
        default=None,
        description="trades: weight of robust accuracy against clean accuracy; 6 if absent",
    )
    calm: Tolerance | None = Field(
        default=None,
        description="active: cross-entropy up to which a sample leaves halfway; 0.06 if absent",
    )
    extra: Index | None = Field(
        default=None,
        description="active: steps after which a fooled sample leaves; half of them if absent",
    )
    awp: AwpConfig | None = Field(
        default=None,
        description="all but standard, tabular, alternating, noise and bounds: train at the worst "
        "weights nearby",
        examples=["{gamma: 0.005, start: 0.3}"],
    )
    sigma: Positive | None = Field(
        default=None,
        description="noise: its standard deviation in units of raw input, that of certify.sigma",
    )
    clean: Share | None = Field(
        default=None,
        description="ibp, crown_ibp: share of the clean loss at the end; 0.5 if absent",
    )
    share: Share | None = Field(
        default=None, description="mtl_ibp: share of the interval loss; 0.5 if absent"
    )
    data: DataConfig | None = Field(
        default=None,
        description="training data, with the keys of data; x_train and y_train of data's npz if "
        "absent",
    )
    epochs: Count | None = Field(
        default=None, description="times through the data; 10 if absent, 3 with a corpus"
    )
    batch_size: Count = Field(default=128, description="samples in a step")
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="what takes the steps")
    rate: Positive | None = Field(
        default=None, description="its highest learning rate; adam 0.002, sgd 0.1 if absent"
    )
    start: Share = Field(
        default=0.0, description="share of the steps before the attacker comes in: cheaper"
    )
    growth: Share | None = Field(
        default=None,
        description="share of the steps in which the radius grows; 0.2 if absent, 0.5 for ibp, "
        "crown_ibp and mtl_ibp, 0 with a corpus",
    )
    smoothing: Share = Field(default=0.0, description="share of each label spread over all classes")
    ema: Share = Field(default=0.999, description="decay of the averaged weights, 0 for none")
    held_out: Share = Field(
        default=0.05, description="share of the training data that the weights are chosen by"
    )
    guard: StrictBool | None = Field(
        default=None,
        description="watch for overfitting to single steps, and recover from it; if absent, for "
        "recipes on points of one region",
    )
    patience: Count | None = Field(
        default=None,
        description="epochs at the full radius without a better robust accuracy of what is held "
        "out after which the training ends; all epochs if absent",
    )
    seed: Index = Field(default=0, description="seed of all randomness")
    corpus: str | None = Field(
        default=None,
        description="folder of kept adversarial examples: the model is fine-tuned on them, and "
        "checked for regressions",
    )
    output: str = Field(
        default="withstand-hardened", description="folder of the weights and what is told of them"
    )

    @model_validator(mode="after")
    def _fits(self) -> HardenConfig:
        for key, names in _ONLY_FOR.items():
            if key in self.model_fields_set and self.recipe not in names:
                raise wrong(
                    key, f"is only for {' or '.join(names)}, not {self.recipe}; take it out"
                )
        for key in ("growth", "start", "guard"):
            if getattr(self, key) and self.recipe in _UNATTACKED:
                raise wrong(key, f"has no use in recipe {self.recipe}, which has no attacker; take "
                            "it out")  # fmt: skip
        if self.start + (self.growth or 0.0) > 1:
            raise wrong(
                "start", f"is {self.start:g} and growth {self.growth:g}, so that the radius is "
                "never reached; give at most 1 together"
            )  # fmt: skip
        for key in ("ema", "smoothing", "start"):
            if getattr(self, key) == 1:
                raise wrong(key, "is 1; give from 0 to below 1")
        if not 0 < self.held_out < 1:
            raise wrong(
                "held_out", f"is {self.held_out:g}; give a share between 0 and 1, such as 0.05"
            )
        if self.recipe in SEVERAL and not self.norms:
            raise wrong(
                "norms", f"are missing for recipe {self.recipe}; add them, e.g. norms: "
                "[{norm: l2, eps: 0.5}]"
            )  # fmt: skip
        balls = 1 + len(self.norms)
        if self.shares is not None and len(self.shares) != balls:
            raise wrong(
                "shares", f"has {len(self.shares)} numbers for {balls} balls; give one above 0 for "
                "threat.region and one for each of norms"
            )  # fmt: skip
        if self.recipe == "noise" and self.sigma is None:
            raise wrong("sigma", "is missing for recipe noise; add it, e.g. sigma: 0.25")
        return self
