"""A small network that learns to give back what it is given, as tensors by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..._errors import DataError
from .._contract import State

_FEWEST = 50
_BATCH = 64


def learned(x: Tensor, *, width: int, steps: int, noise: float, seed: int) -> State:
    """An autoencoder of benign inputs x (N, ...), after `steps` of Adam on 64 inputs each.

    Two convolutions that halve each side and two that double it where there are neighbours, dense
    layers with a code of half the features elsewhere. noise: the deviation that is added to what it
    sees, in standard deviations of the inputs (Vincent et al. 2008). The same seed gives the same
    network. Raises DataError for fewer than 50 inputs.
    """
    from torch.optim import Adam

    if len(x) < _FEWEST:
        raise DataError(
            f"{len(x)} benign inputs are too few for an autoencoder; give at least {_FEWEST}, "
            "better thousands"
        )
    rng = torch.Generator().manual_seed(seed)
    x = x.detach().float()
    # Each feature of a table has its unit; positions of a picture have one in common.
    axes = (0, *range(2, x.ndim))
    shift, scale = x.mean(axes, keepdim=True), x.std(axes, keepdim=True)
    # A feature that never moves would be an error without bounds as soon as it does.
    scale = scale.clamp_min(1e-3 * float(scale.max()) + 1e-12)
    layers = _drawn(x, width, rng)
    state = {"shift": shift, "scale": scale, **layers}
    optimizer = Adam([value.requires_grad_() for value in layers.values()], 3e-3)
    with torch.enable_grad():
        for rows in _batches(len(x), steps, rng):
            clean = x[rows]
            shaken = clean + noise * scale * torch.randn(clean.shape, generator=rng).to(x.device)
            optimizer.zero_grad()
            torch.autograd.backward(error(state, clean, rebuilt(state, shaken)).mean())
            optimizer.step()
    return {name: value.detach() for name, value in state.items()}


def rebuilt(state: State, x: Tensor) -> Tensor:
    """What the autoencoder makes of x (B, ...), in the same shape."""
    h, sizes = (x - state["shift"]) / state["scale"], []
    for i in range(4):
        weight, bias = state[f"{i}.weight"], state[f"{i}.bias"]
        # The code itself is linear: few units that never fire would lose what they stand for.
        h = h.relu() if i in (1, 3) else h
        if x.ndim == 2:
            h = F.linear(h, weight, bias)
            continue
        if i < 2:
            sizes.append(h.shape[2:])
        else:
            h = F.interpolate(h, size=sizes.pop())
        convolved = F.conv1d if x.ndim == 3 else F.conv2d
        h = convolved(h, weight, bias, stride=2 if i < 2 else 1, padding=1)
    return h * state["scale"] + state["shift"]


def error(state: State, x: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference (B,) of x and other (B, ...), in standard deviations."""
    return ((x - other) / state["scale"]).square().flatten(1).mean(1)


def _drawn(x: Tensor, width: int, rng: torch.Generator) -> State:
    """Weights and biases, drawn uniformly as He et al. (2015) say."""
    features = x.shape[1]
    if x.ndim == 2:
        widths = (features, 4 * width, max(1, features // 2), 4 * width, features)
        kernel: tuple[int, ...] = ()
    else:
        widths = (features, width, 2 * width, width, features)
        kernel = (3,) * (x.ndim - 2)
    state: State = {}
    for i, (inside, outside) in enumerate(pairwise(widths)):
        weight = torch.empty(outside, inside, *kernel)
        reach = math.sqrt(6 / (inside * math.prod(kernel)))
        state[f"{i}.weight"] = weight.uniform_(-reach, reach, generator=rng).to(x.device)
        state[f"{i}.bias"] = torch.zeros(outside, device=x.device)
    return state


def _batches(count: int, steps: int, rng: torch.Generator) -> Iterator[Tensor]:
    """As many batches of rows as there are steps, each row once before any comes again."""
    rows: list[Tensor] = []
    for _ in range(steps):
        if not rows:
            rows = list(torch.split(torch.randperm(count, generator=rng), _BATCH))
        yield rows.pop()
