"""Attacks that fail, so that their failure looks like the model's strength."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

DefectiveAttack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def wrong_sign(eps: float, *, steps: int = 40) -> DefectiveAttack:
    """PGD in Linf (Madry et al. 2018) that goes down the loss instead of up.

    eps: radius in units of x. The attack maps a net, x (B, ...) in [0, 1] and y (B,) to x_adv;
    1 forward and 1 backward a step.
    """

    def attack(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return climbed(net, x, y, eps=eps, size=-2.5 * eps / steps, steps=steps)

    return attack


def last_iterate(eps: float, *, steps: int = 40) -> DefectiveAttack:
    """PGD in Linf that comes closer whenever it fools (Rony et al. 2019, algorithm 1), and returns
    its last point, whether that fools or not.

    eps: radius in units of x. The attack maps a net, x (B, ...) in [0, 1] and y (B,) to x_adv;
    1 forward and 1 backward a step.
    """

    def attack(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        moved, radius = x.detach(), x.new_full((len(x), *[1] * (x.ndim - 1)), eps)
        for _ in range(steps):
            scores, slope = _climb(net, moved, y)
            fooled = (scores.argmax(1) != y).reshape(radius.shape)
            radius = torch.where(fooled, 0.8 * radius, 1.25 * radius).clamp(max=eps)
            ahead = moved + eps / 4 * slope.sign()
            moved = ahead.clamp(x - radius, x + radius).clamp(0, 1)
        return moved

    return attack


def climbed(
    net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, eps: float, size: float, steps: int
) -> Tensor:
    """x (B, ...) in [0, 1] after signed steps of this size up the cross-entropy, within eps."""
    moved = x.detach()
    for _ in range(steps):
        ahead = moved + size * _climb(net, moved, y)[1].sign()
        moved = ahead.clamp(x - eps, x + eps).clamp(0, 1)
    return moved


def _climb(net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and the gradient of cross-entropy with respect to x."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        scores = net(x)
        (slope,) = torch.autograd.grad(cross_entropy(scores, y, reduction="sum"), x)
    return scores.detach(), slope
