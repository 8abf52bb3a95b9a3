"""Lower slopes chosen for each bound by gradient ascent (alpha-CROWN, Xu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ._activations import Lines
from ._crown import Bounded

_RATE = 0.1
# Adam's two decays (Kingma and Ba 2015); its own module takes seconds to import.
_MEAN, _SQUARE = 0.9, 0.999


def ascended(
    bounded: Bounded,
    a: Tensor,
    owner: Tensor,
    *,
    steps: int,
    enough: Tensor | None = None,
    signs: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """Lower bounds (R,) of linear functions a (R, ...) of the output, after `steps` steps of Adam.

    Every function has slopes of its own; the bounds of hidden layers stay. They start from CROWN's
    and never fall below. enough: values (R,) above which a bound need not rise further; signs:
    what is known of values (R, ...) of nodes, each with a multiplier of its own (Wang et al. 2021).
    """
    enough = a.new_full((len(a),), torch.inf) if enough is None else enough
    found = [
        _ascended(
            bounded,
            a[rows],
            owner[rows],
            steps,
            enough[rows],
            {at: sign[rows] for at, sign in (signs or {}).items()},
        )
        for rows in bounded.chunks(len(a))
    ]
    return torch.cat(found) if found else a.new_zeros(0)


def _ascended(
    bounded: Bounded,
    a: Tensor,
    owner: Tensor,
    steps: int,
    enough: Tensor,
    signs: dict[int, Tensor],
) -> Tensor:
    slopes = {
        at: lines.take(owner).below[0]
        for at, lines in bounded.lines.items()
        if isinstance(lines, Lines) and lines.free is not None and bool(lines.free.any())
    }
    split = {at: sign for at, sign in signs.items() if bool(sign.any())}
    values = [*slopes.values(), *(torch.zeros_like(sign) for sign in split.values())]
    ends = [*((bounded.lines[at].least, 1.0) for at in slopes), *((0.0, torch.inf) for _ in split)]
    mean, square = ([torch.zeros_like(value) for value in values] for _ in range(2))
    best = a.new_full((len(a),), -torch.inf)
    for step in range(1, steps + 2):
        with torch.enable_grad():
            values = [value.detach().requires_grad_() for value in values]
            chosen = dict(zip(slopes, values, strict=False))
            factors = values[len(slopes) :]
            less = {
                at: sign * factor for (at, sign), factor in zip(split.items(), factors, strict=True)
            }
            found = bounded.least(bounded.graph.output, a, owner, slopes=chosen, less=less)
        best = torch.maximum(best, found.detach())
        if step > steps or not found.requires_grad or bool((best > enough).all()):
            break
        gradients = torch.autograd.grad(
            found, values, torch.ones_like(found), materialize_grads=True
        )
        for i, gradient in enumerate(gradients):
            mean[i].lerp_(gradient, 1 - _MEAN)
            square[i].lerp_(gradient.square(), 1 - _SQUARE)
            rise = mean[i] / (1 - _MEAN**step)
            size = (square[i] / (1 - _SQUARE**step)).sqrt() + 1e-8
            values[i] = (values[i].detach() + _RATE * rise / size).clamp(*ends[i])
    return best
