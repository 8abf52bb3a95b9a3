"""Before an attack: do the gradients say where the loss goes?"""

from __future__ import annotations

import torch
from torch import Tensor

from ._check import Case, Check

_STEP = 1e-3
_NEVER = float("inf")


def _cut_off(case: Case) -> float | None:
    """1 where the scores do not depend on the input in a way that autograd can follow."""
    places = case.sample(4, 2)
    if not len(places) or not case.gradients:
        return None
    followed: list[bool] = []

    def objective(scores: Tensor) -> Tensor:
        followed.append(scores.requires_grad)
        return scores.sum(1)

    case.purse.spend(len(places), len(places))
    case.model.gradient(case.x[places], objective)
    return float(not all(followed))


def _zero(case: Case) -> float | None:
    """Share of samples without a gradient of the margin, at x or at a point beside it."""
    if case.probe is None:
        return None
    places = case.sample(64, 2)
    if not len(places):
        return case.probe.zero_gradients
    _, gradient = case.slope(case.noisy(places, 1.0, 8), places)
    flat = gradient.flatten(1)
    beside = float(((flat == 0).all(1) | ~torch.isfinite(flat).all(1)).float().mean())
    return max(case.probe.zero_gradients, beside)


def _saturated(case: Case) -> float | None:
    return None if case.probe is None else case.probe.saturated


def _unfaithful(case: Case) -> float | None:
    """Share of samples whose gradient differs from finite differences along random signs."""
    places = case.sample(16, 34)
    if len(places) < 4 or not case.gradients or case.led:
        return None
    x = case.x[places]
    _, gradient = case.slope(x, places)
    step = _STEP * (case.span if case.capability is None else case.widths(places))
    predicted, seen = [], []
    for draw in range(16):
        signs = 2 * torch.randint(0, 2, x.shape, generator=case.generator(90 + draw)) - 1
        signs = signs.to(x)
        ahead, behind = case.margin(x + step * signs, places), case.margin(x - step * signs, places)
        seen.append((ahead - behind) / 2)
        predicted.append((gradient * step * signs).flatten(1).sum(1))
    wanted, found = torch.stack(predicted).double(), torch.stack(seen).double()
    known = wanted.norm(dim=0) > 0
    if not bool(known.any()):
        return None
    cosine = torch.cosine_similarity(wanted, found, dim=0)[known]
    return float((cosine < 0.5).double().mean())


def _unstable(case: Case) -> float | None:
    """Mean relative change of the margin under noise of a twentieth of the radius, at most 1."""
    places = case.sample(32, 17)
    # What a feature of a table can become is no small change, nor is a twentieth of it.
    if not len(places) or not case.gradients or case.capability:
        return None
    here = case.margin(case.x[places], places)
    changes = [
        ((case.margin(case.noisy(places, 0.05, 100 + draw), places) - here).abs() / here.abs())
        for draw in range(16)
    ]
    return float(torch.stack(changes).clamp_max(1).nan_to_num(1.0).mean())


def _distorted(case: Case) -> float | None:
    """Share fooled on the way of one full step along the gradient's sign, and not at its end."""
    places = case.sample(128, 10)
    if not len(places) or not case.gradients or case.threat.norm == "l0" or case.capability:
        return None
    _, gradient = case.slope(case.x[places], places)
    inner = torch.zeros(len(places), dtype=torch.bool, device=case.x.device)
    last = inner
    for share in (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0):
        point = case.moved(places, -gradient.sign(), share)
        answer = case.threat.goal.decide(case.scores(point))
        inner, last = inner | last, case.threat.goal.hit(answer, case.y[places])
    return float((inner & ~last).float().mean())


CHECKS = (
    Check(
        name="not differentiable",
        when="before",
        measure=_cut_off,
        amber=0,
        red=0.5,
        meaning="1 where no gradient connects the scores with the input",
        fix="attack through the step that cuts it, with Differentiable",
        source="Athalye et al. 2018",
    ),
    Check(
        name="zero gradients",
        when="before",
        measure=_zero,
        amber=0.0,
        red=0.05,
        meaning="share of inputs where the margin has no gradient: gradient attacks are blind "
        "there",
        fix="attack through the defence with Differentiable, or remove it for the evaluation",
        source="Pintor et al. 2022",
    ),
    Check(
        name="saturated cross-entropy",
        when="before",
        measure=_saturated,
        amber=0.1,
        meaning="share of inputs where cross-entropy has no gradient; the losses used here have "
        "one, but tools with plain cross-entropy overestimate this model",
        fix="divide the logits by their spread before other tools attack",
        source="Carlini and Wagner 2017",
    ),
    Check(
        name="gradient fidelity",
        when="before",
        measure=_unfaithful,
        amber=0.1,
        red=0.5,
        meaning="share of inputs whose gradient disagrees with finite differences (cosine below "
        "0.5): the way it points is not the way the loss goes",
        fix="attack through the defence (Differentiable), or average the gradient (Randomized)",
        source="Athalye et al. 2018",
    ),
    Check(
        name="unstable loss",
        when="before",
        measure=_unstable,
        amber=0.1,
        meaning="mean relative change of the margin under noise of a twentieth of the radius: the "
        "loss is too rugged for small steps",
        fix="average the gradient over noise",
        source="Pintor et al. 2022",
    ),
    Check(
        name="boundary distortion",
        when="before",
        measure=_distorted,
        amber=0.05,
        meaning="share of inputs that are fooled within one full step along the gradient's sign "
        "but not at its end, as after training against one step only",
        fix="train against several steps, and judge by iterated attacks only",
        source="Kim et al. 2021",
    ),
)
