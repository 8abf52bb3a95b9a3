"""Adversarial training of networks on tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._errors import ConfigError
from ..attacks import CAPGD, craft
from ..models import TorchModel
from ..threat import Region, Targeted, Threat
from ._contract import Lost, Moment


@dataclass(frozen=True, kw_only=True)
class Tabular:
    """Training on rows that an attacker of a table can make (Simonetto et al. 2024, section 5).

    threat: its region holds a Capability; with a targeted goal, rows of the target's class are not
    attacked, as legitimate customers attack nobody. Points are those at which CAPGD of `steps`
    steps ends, each of them in the region. clean: share of the loss that an attacked row's own
    point keeps. Costs steps + 2 gradient passes for the rows that are attacked.
    """

    threat: Threat
    steps: int = 7
    clean: float = 0.5

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.clean < 1:
            raise ConfigError(
                f"steps is {self.steps} and clean {self.clean:g}; give at least 1 step, and a "
                "share from 0 to below 1"
            )

    @property
    def regions(self) -> tuple[Region, ...]:
        """None: what a capability allows is no ball, and `withstands` tells who withstands it."""
        return ()

    def craft(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """The points (B, F) that the attack ends at; those of rows not attacked are x."""
        rows = self._at_risk(y)
        points = x.clone()
        if len(rows):
            seed = int(torch.randint(2**62, (), generator=at.noise))
            model = TorchModel(net, domain=at.domain)
            attack = CAPGD(steps=self.steps, restarts=1, loss="ce")
            threat = replace(self.threat, access="gradients")
            points[rows] = craft(
                attack, model, x[rows], y[rows], threat, seed=seed, batch_size=len(rows)
            )
        return points

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        """Cross-entropy of the rows, and of the crafted points where there are any."""
        points, rows = self.craft(net, x, y, at), self._at_risk(y)
        scores = net(torch.cat((points, x[rows])))
        labels = torch.cat((y, y[rows]))
        each = cross_entropy(scores, labels, reduction="none", label_smoothing=at.smoothing)
        weight = torch.ones_like(each)
        weight[rows], weight[len(x) :] = 1 - self.clean, self.clean
        return Lost((each * weight).sum() / len(x), scores[: len(x)])

    def withstands(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        """Which rows x (N, F) the net gets right at the point that the attack ends at, (N,)."""
        was = net.training
        net.eval()
        try:
            points = self.craft(net, x, y, at)
            with torch.no_grad():
                right: Tensor = (net(points).argmax(1) == y) & (net(x).argmax(1) == y)
        finally:
            net.train(was)
        return right

    def _at_risk(self, y: Tensor) -> Tensor:
        """The rows that the attacker would change."""
        goal = self.threat.goal
        attacked = y != goal.target if isinstance(goal, Targeted) else torch.ones_like(y).bool()
        return attacked.nonzero()[:, 0]
