"""A net that learns: its weights, their average, and the optimiser, taken forward and back."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ._average import Average

if TYPE_CHECKING:
    from torch.optim import Optimizer


class Learner:
    """All that a step of a training changes. decay: of the averaged weights, 0 for none."""

    def __init__(self, net: nn.Module, optimizer: Callable[[Any], Optimizer], decay: float) -> None:
        self.net, self.step = net, 0
        self.optimizer = optimizer([p for p in net.parameters() if p.requires_grad])
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.average = Average(net, decay) if decay else None

    @property
    def nets(self) -> dict[str, nn.Module]:
        """The net with its last weights, and the averaged one."""
        nets = {"last": self.net}
        return nets if self.average is None else {"average": self.average.net, **nets}

    def learn(self, loss: Tensor, rate: float) -> None:
        """One step down the loss, at a share of the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.net)
        self.step += 1

    def now(self) -> dict[str, Any]:
        """A copy of all that a step changes."""
        average = None if self.average is None else self.average.content()
        state: dict[str, Any] = deepcopy(
            {
                "step": self.step,
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": average,
            }
        )
        return state

    def go_back(self, state: dict[str, Any]) -> None:
        """Take over weights, averages and the optimiser's memory; the count of steps goes on."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))
        if self.average is not None:
            self.average.restore(state["average"])
