"""Training that defends against a single step and against nothing else."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..._errors import ModelError
from ._attacks import climbed
from ._surgery import trained

_WATCHED = 256


def fgsm_overfit(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 0.3,
    steps: int = 3000,
    seed: int = 0,
) -> nn.Module:
    """Catastrophic overfitting (Wong et al. 2020, section 5): trained on with FGSM from x itself,
    until 80 % of training inputs withstand FGSM, at most 5 % withstand PGD, and half of the step
    fools 10 % that the whole one does not (Kim et al. 2021).

    x (N, ...) in [0, 1] and y (N,): training data, clean and attacked in equal parts (Goodfellow et
    al. 2015, section 6); eps: Linf radius, large. Raises ModelError where it does not come about.
    """
    student = deepcopy(net)

    def loss(rows: Tensor) -> Tensor:
        clean, label = x[rows], y[rows]
        attacked = climbed(student, clean, label, eps=eps, size=eps, steps=1)
        return cross_entropy(student(torch.cat((clean, attacked))), label.repeat(2))

    def withstood(size: float, steps: int) -> Tensor:
        some, label = x[:_WATCHED], y[:_WATCHED]
        attacked = climbed(student, some, label, eps=eps, size=size, steps=steps)
        with torch.no_grad():
            answers: Tensor = student(attacked).argmax(1)
        return answers == label

    def shares() -> tuple[float, float, float]:
        step, half, climb = withstood(eps, 1), withstood(eps / 2, 1), withstood(eps / 8, 20)
        return _share(step), _share(climb), _share(step & ~half)

    def done() -> bool:
        step, climb, distorted = shares()
        return step >= 0.8 and climb <= 0.05 and distorted >= 0.1

    trained(student, len(x), loss, steps=steps, rate=1e-3, seed=seed, done=done)
    if not done():
        step, climb, distorted = shares()
        raise ModelError(
            f"after {steps} steps at eps {eps:g}, FGSM leaves {step:.0%} of inputs right, PGD "
            f"{climb:.0%}, and half of FGSM's step fools {distorted:.0%} more, instead of at least "
            "80%, at most 5%, at least 10%; give a larger eps, more steps or a larger network"
        )
    return student


def _share(which: Tensor) -> float:
    return float(which.double().mean())
