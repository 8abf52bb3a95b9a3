"""Every planted defect with the check that must notice it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ._attacks import last_iterate, wrong_sign
from ._handed import batch_norm_training, bf16_stem, constant, softmax_output, training_mode
from ._kwta import kwta
from ._overfitted import fgsm_overfit
from ._random import dropout_on, random_resize
from ._saturated import distilled, scaled
from ._shattered import detached, jpeg, quantiser, thermometer, zero_gradient

Kind = Literal["defence", "training", "wrapper", "attack"]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A defect, how to plant it, and the checks one of which must turn amber or red on it.

    kind: a defence hides a sound network and can be taken off; training spoilt the network itself;
    a wrapper hands it in wrongly; an attack is what is defective. plant: maps a net to a defective
    one, or with needs_data a net, x (N, ...) and y (N,); for an attack a radius to the attack.
    """

    name: str
    kind: Kind
    plant: Callable[..., Any]
    checks: tuple[str, ...]
    needs_data: bool = False


PLANTED: tuple[Planted, ...] = (
    Planted(name="zero_gradient", kind="defence", plant=zero_gradient, checks=("zero gradients",)),
    Planted(name="quantiser", kind="defence", plant=quantiser, checks=("zero gradients",)),
    Planted(
        name="jpeg",
        kind="defence",
        plant=jpeg,
        checks=("not differentiable", "zero gradients"),
    ),
    Planted(name="thermometer", kind="defence", plant=thermometer, checks=("zero gradients",)),
    Planted(name="scaled", kind="defence", plant=scaled, checks=("saturated cross-entropy",)),
    Planted(
        name="distilled",
        kind="defence",
        plant=lambda net, x, y: distilled(net, x),
        checks=("saturated cross-entropy",),
        needs_data=True,
    ),
    Planted(
        name="kwta",
        kind="defence",
        plant=kwta,
        checks=("unstable loss", "gradient fidelity"),
        needs_data=True,
    ),
    Planted(name="dropout_on", kind="defence", plant=dropout_on, checks=("random answers",)),
    Planted(name="random_resize", kind="defence", plant=random_resize, checks=("random answers",)),
    Planted(
        name="fgsm_overfit",
        kind="training",
        plant=fgsm_overfit,
        checks=("boundary distortion",),
        needs_data=True,
    ),
    Planted(
        name="training_mode",
        kind="wrapper",
        plant=training_mode,
        checks=("handed in training",),
    ),
    Planted(
        name="batch_norm_training",
        kind="wrapper",
        plant=lambda net, x, y: batch_norm_training(net, x),
        checks=("batch dependence",),
        needs_data=True,
    ),
    Planted(name="softmax_output", kind="wrapper", plant=softmax_output, checks=("probabilities",)),
    Planted(
        name="detached",
        kind="wrapper",
        plant=detached,
        checks=("zero gradients", "gradient fidelity"),
    ),
    Planted(
        name="partly_detached",
        kind="wrapper",
        plant=lambda net: detached(net, kept=0.05),
        checks=("gradient fidelity",),
    ),
    Planted(name="constant", kind="wrapper", plant=constant, checks=("one answer",)),
    Planted(name="bf16_stem", kind="wrapper", plant=bf16_stem, checks=("input precision",)),
    Planted(
        name="wrong_sign",
        kind="attack",
        plant=wrong_sign,
        checks=("single step beats the attack",),
    ),
    Planted(
        name="last_iterate",
        kind="attack",
        plant=last_iterate,
        checks=("discarded successes",),
    ),
)
