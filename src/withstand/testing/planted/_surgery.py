"""A copy of a network with some of its layers replaced, or all of them trained anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from ..._errors import ModelError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def named(net: nn.Module, kinds: Sequence[type[nn.Module]]) -> list[str]:
    """Names of the net's layers of these kinds, in the order in which it declares them."""
    every = net.named_modules(remove_duplicate=False)
    return [name for name, layer in every if isinstance(layer, tuple(kinds))]


def weighted(net: nn.Module) -> list[str]:
    """Names of the net's convolutions and linear layers; raises ModelError if it has none."""
    found = named(net, _WEIGHTED)
    if not found:
        raise ModelError(
            "the network has 0 modules nn.Conv1d to 3d or nn.Linear; plant this defect in one "
            "that has 1 or more"
        )
    return found


def rewired(
    net: nn.Module, names: Sequence[str], make: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """A copy of the net in eval mode, in which make(layer) stands for each named layer."""
    root = nn.Sequential(deepcopy(net))
    for name in names:
        path = f"0.{name}" if name else "0"
        root.set_submodule(path, make(root.get_submodule(path)))
    return root.eval()


def renewed(net: nn.Module, seed: int) -> nn.Module:
    """A copy of the net whose layers are drawn anew, those of torch.nn by their own rules."""
    copy = deepcopy(net)
    with torch.random.fork_rng(_cuda(copy)):
        torch.manual_seed(seed)
        for layer in copy.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
    return copy


def trained(
    net: nn.Module,
    count: int,
    loss: Callable[[Tensor], Tensor],
    *,
    steps: int,
    rate: float,
    seed: int,
    done: Callable[[], bool] = lambda: False,
) -> nn.Module:
    """The net itself after at most so many steps of Adam (Kingma and Ba 2015), in eval mode.

    loss: of a batch of 64 rows, given their indices among `count`; done: asked every 50 steps.
    """
    weights = list(net.requires_grad_().train().parameters())
    means = [torch.zeros_like(weight) for weight in weights]
    squares = [torch.zeros_like(weight) for weight in weights]
    with torch.random.fork_rng(_cuda(net)), torch.enable_grad():
        torch.manual_seed(seed)
        for step in range(1, steps + 1):
            rows = torch.randint(count, (64,))
            slopes = torch.autograd.grad(loss(rows), weights)
            # By hand, since torch.optim imports the compiler, which takes longer than all this.
            for w, m, v, g in zip(weights, means, squares, slopes, strict=True):
                m.lerp_(g, 0.1)
                v.lerp_(g.square(), 0.001)
                spread = (v / (1 - 0.999**step)).sqrt() + 1e-8
                w.data.sub_(rate * m / (1 - 0.9**step) / spread)
            if step % 50 == 0:
                net.eval()
                if done():
                    break
                net.train()
    return net.eval()


def _cuda(net: nn.Module) -> list[torch.device]:
    return list({p.device for p in net.parameters() if p.device.type == "cuda"})
