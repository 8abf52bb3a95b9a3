"""Penalties on how steep a network is, added to any recipe's loss.

Alone they flatten the loss where the data lies and leave it steep beside: robust accuracy of a
network with a penalty and no adversarial training is to be measured before it is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ConfigError
from ..threat import Region
from ._contract import Lost, Moment, Recipe

# In eval mode a batch norm is affine too.
_AFFINE = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True, kw_only=True)
class _Penalised:
    recipe: Recipe
    weight: float

    def __post_init__(self) -> None:
        if not (isfinite(self.weight) and self.weight >= 0):
            raise ConfigError(
                f"the weight of {type(self).__name__} is {self.weight}; give a finite number of at "
                "least 0"
            )

    @property
    def regions(self) -> tuple[Region, ...]:
        """Those of the recipe inside: a penalty hardens against nothing by itself."""
        return self.recipe.regions

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """The recipe's loss plus `weight` times the penalty at the clean points."""
        lost = self.recipe.loss(net, x, y, at)
        with _still(net):
            penalty = self.penalty(net, x, y, at.noise)
        return lost._replace(loss=lost.loss + self.weight * penalty)

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        """The penalty () of a net in eval mode, differentiable in its weights."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class GradientPenalty(_Penalised):
    """The squared L2 norm of the loss's gradient with respect to the input, mean over the batch.

    Double backpropagation (Ross and Doshi-Velez 2018). Adds 1 forward and 2 backwards.
    """

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        x = x.detach().requires_grad_()
        loss = cross_entropy(net(x), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        return gradient.square().sum() / len(x)


@dataclass(frozen=True, kw_only=True)
class JacobianPenalty(_Penalised):
    """Half of the squared Frobenius norm of the scores' Jacobian, mean over the batch.

    Estimated without bias from random unit vectors v as K |v J|^2 (Hoffman et al. 2019, alg. 1);
    projections: how many. Adds 1 forward and 1 + projections backwards.
    """

    projections: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projections < 1:
            raise ConfigError(f"projections is {self.projections}; give at least 1")

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        x = x.detach().requires_grad_()
        scores = net(x)
        total = torch.zeros((), device=x.device)
        for _ in range(self.projections):
            v = torch.randn(scores.shape, generator=noise, device=x.device)
            v = v / v.norm(dim=1, keepdim=True).clamp_min(1e-12)
            (row,) = torch.autograd.grad(scores, x, v, create_graph=True)
            total = total + scores.shape[1] * row.square().sum() / len(x)
        return total / (2 * self.projections)


@dataclass(frozen=True, kw_only=True)
class LipschitzPenalty(_Penalised):
    """Half of the sum of the layers' squared spectral norms (Yoshida and Miyato 2017).

    Their product bounds how far the scores move for a change of the input, in L2. iterations: of
    the power method, on the layer as it acts on inputs of this shape; each costs 1 forward and
    1 backward of one sample in place of a batch.
    """

    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ConfigError(f"iterations is {self.iterations}; give at least 1")

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        norms = _norms(net, x, self.iterations, noise)
        return 0.5 * torch.stack(norms).square().sum() if norms else x.new_zeros(())


def lipschitz_bound(net: nn.Module, x: Tensor, *, iterations: int = 100, seed: int = 0) -> float:
    """The product of the layers' spectral norms: of a chain of linear, convolutional and batch norm
    layers with activations and pooling that do not stretch, a bound of its Lipschitz constant in
    L2.

    x (B, ...): input of the shape that the layers act on. The power method reaches each norm from
    below, so that this is an estimate and no certificate; and no bound at all where branches are
    added (residual nets) or inputs multiplied (attention).
    """
    noise = torch.Generator(device=x.device).manual_seed(seed)
    bound = 1.0
    with _still(net):
        for norm in _norms(net, x, iterations, noise):
            bound *= float(norm.detach())
    return bound


def spectral_norm(
    layer: nn.Module, shape: Sequence[int], *, iterations: int, noise: torch.Generator
) -> Tensor:
    """By how much () an affine layer stretches an input of this shape at most, in L2.

    From below, by the power method on J^T J, whose product with v is the gradient of |J v|^2 / 2;
    differentiable in the layer's weights. 1 forward and 1 backward an iteration.
    """
    weight = next(layer.parameters())
    v = torch.randn((1, *shape), generator=noise, device=weight.device, dtype=weight.dtype)
    offset = layer(torch.zeros_like(v))
    for _ in range(iterations):
        v = (v / v.norm().clamp_min(1e-12)).requires_grad_()
        with torch.enable_grad():
            half = 0.5 * (layer(v) - offset.detach()).square().sum()
        (v,) = torch.autograd.grad(half, v)
    v = v / v.norm().clamp_min(1e-12)
    length: Tensor = (layer(v) - offset).norm()
    return length


def _norms(net: nn.Module, x: Tensor, iterations: int, noise: torch.Generator) -> list[Tensor]:
    """The spectral norms of the affine layers that one sample passes, in the order of their use."""
    passed: list[tuple[nn.Module, torch.Size]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        passed.append((layer, given[0].shape[1:]))

    with ExitStack() as hooks, torch.no_grad():
        for module in net.modules():
            if isinstance(module, _AFFINE) and next(module.parameters(), None) is not None:
                hooks.callback(module.register_forward_pre_hook(note).remove)
        net(x[:1])
    return [
        spectral_norm(layer, shape, iterations=iterations, noise=noise) for layer, shape in passed
    ]


@contextmanager
def _still(net: nn.Module) -> Iterator[None]:
    """Eval mode inside: what is deployed is penalised, and batch norm does not learn twice."""
    modes = [(module, module.training) for module in net.modules()]
    with ExitStack() as restored:
        for module, training in modes:
            restored.callback(partial(setattr, module, "training", training))
        net.eval()
        yield
