"""Certified training: losses over bounds of the network, so that it can be proven afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt, tau
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ThreatError
from ..certify.bounds import Graph, rivals, trace, worst_leads
from ..threat import Region
from ._contract import Lost, Moment
from ._crafting import around, crafting
from ._pgd import PGD

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_AT_ONCE = 128
_GRAPHS: WeakKeyDictionary[nn.Module, Graph] = WeakKeyDictionary()


def _graph(net: nn.Module, x: Tensor) -> Graph:
    graph = _GRAPHS.get(net)
    if graph is None or graph.shapes[0] != tuple(x.shape[1:]):
        graph = _GRAPHS[net] = trace(net, x)
    return graph


def _box(region: Region, x: Tensor, at: Moment) -> tuple[Tensor, Tensor]:
    ball = around(region, x, at).problem
    if ball.norm != "linf":
        raise ThreatError(f"the region is {region.describe()}; certified training needs Linf")
    return ball.lower, ball.upper


def _worst(leads: Tensor, y: Tensor) -> Tensor:
    """The worst scores (B, K): the label's is 0, the others' are what they may lead by.

    leads: lower bounds (B, K - 1) of the label's lead over each other class (Wong and Kolter
    2018).
    """
    worst = torch.zeros(len(y), leads.shape[1] + 1, dtype=leads.dtype, device=leads.device)
    return worst.scatter(1, rivals(y, worst.shape[1]), -leads)


def _mixed(net: nn.Module, x: Tensor, y: Tensor, worst: Tensor, clean: float, at: Moment) -> Lost:
    """The clean loss, whose share falls from 1 to `clean` as the radius grows, and the worst."""
    loss = cross_entropy(worst, y, label_smoothing=at.smoothing)
    # At radius 0 the worst loss is the clean one: where none is wanted at the end, none is needed.
    share = 1 - (1 - clean) * at.scale if clean else 0.0
    if share == 0 and not any(isinstance(part, _NORMS) for part in net.modules()):
        return Lost(loss, worst)
    # Batch norm has its statistics from here, also where the loss has no use for the scores.
    scores = net(x)
    natural = cross_entropy(scores, y, label_smoothing=at.smoothing)
    return Lost(share * natural + (1 - share) * loss, scores)


def _proven(
    net: nn.Module, x: Tensor, y: Tensor, region: Region, at: Moment, *, crown: bool
) -> Tensor:
    with crafting(net), torch.no_grad():
        rows = zip(torch.split(x, _AT_ONCE), torch.split(y, _AT_ONCE), strict=True)
        parts = [
            worst_leads(_graph(net, some), *_box(region, some, at), label, crown=crown)
            for some, label in rows
        ]
    return (torch.cat(parts) > 0).all(1)


@dataclass(frozen=True, kw_only=True)
class IBP:
    """Training on interval bounds (Gowal et al. 2018), clean and worst scores mixed.

    clean: the clean loss's share at the end; it starts at 1 and falls while the radius grows. With
    0 the bounds' loss is alone from the start (Shi et al. 2021), a third of a step cheaper. Let the
    radius grow over a third of the training, begin with `ibp_weights`, and train at a radius
    somewhat above the one to be proven. Batch norm's bounds use its running statistics.
    """

    region: Region
    clean: float = 0.5

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it hardens against."""
        return (self.region,)

    def proven(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """Which samples interval bounds prove, (N,); about 2 clean steps."""
        return _proven(net, x, y, self.region, at, crown=False)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Clean cross-entropy and that of the worst scores; about 2 clean steps."""
        leads = worst_leads(_graph(net, x), *_box(self.region, x, at), y)
        return _mixed(net, x, y, _worst(leads, y), self.clean, at)


@dataclass(frozen=True, kw_only=True)
class CrownIBP:
    """Training on CROWN's bounds over interval bounds (Zhang et al. 2020).

    The share of CROWN's bounds falls from 1 to `crown` while the radius grows. Costs about as many
    clean steps as there are classes.
    """

    region: Region
    clean: float = 0.5
    crown: float = 0.0

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it hardens against."""
        return (self.region,)

    def proven(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """Which samples interval bounds prove, (N,); about 2 clean steps."""
        return _proven(net, x, y, self.region, at, crown=False)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Clean cross-entropy and that of the worst scores by both bounds mixed."""
        box, graph = _box(self.region, x, at), _graph(net, x)
        beta = 1 - (1 - self.crown) * at.scale
        leads = worst_leads(graph, *box, y)
        if beta > 0:
            leads = (1 - beta) * leads + beta * worst_leads(graph, *box, y, crown=True)
        return _mixed(net, x, y, _worst(leads, y), self.clean, at)


@dataclass(frozen=True, kw_only=True)
class MTLIBP:
    """Adversarial and interval losses mixed (MTL-IBP, De Palma et al. 2024).

    share: that of the interval loss. The more of it, the easier the proof; the less, the better the
    clean accuracy. attack: how the adversarial points are made, PGD of `steps` steps.
    """

    region: Region
    share: float = 0.5
    steps: int = 1

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it hardens against."""
        return (self.region,)

    def proven(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """Which samples CROWN over interval bounds proves, (N,); a clean step for each class."""
        return _proven(net, x, y, self.region, at, crown=True)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy at crafted points and that of the worst scores."""
        points = PGD(region=self.region, steps=self.steps).craft(net, x, y, at)
        scores = net(points)
        leads = worst_leads(_graph(net, x), *_box(self.region, x, at), y)
        proven = cross_entropy(_worst(leads, y), y, label_smoothing=at.smoothing)
        attacked = cross_entropy(scores, y, label_smoothing=at.smoothing)
        return Lost((1 - self.share) * attacked + self.share * proven, scores)


def ibp_weights(net: nn.Module, *, seed: int = 0) -> None:
    """Draw the weights anew so that intervals neither grow nor shrink (Shi et al. 2021)."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                weight = module.weight
                drawn = torch.randn(weight.shape, generator=noise)
                weight.copy_(drawn * sqrt(tau) / prod(weight.shape[1:]))
                if module.bias is not None:
                    module.bias.zero_()
