"""Networks that answer the same input at random (stochastic gradients, Athalye et al. 2018)."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ._surgery import named, rewired, weighted


def dropout_on(net: nn.Module, *, p: float = 0.3) -> nn.Module:
    """The net with dropout that stays active in eval mode (Gal and Ghahramani 2016).

    p: the share dropped before the last layer with weights, where the net has no nn.Dropout of its
    own; raises ModelError for a net without convolutions and linear layers.
    """
    own = named(net, [nn.Dropout])
    if own:
        return rewired(net, own, _still_dropping)
    return rewired(net, weighted(net)[-1:], lambda last: nn.Sequential(_AlwaysDropout(p), last))


def random_resize(net: nn.Module, *, smallest: float = 0.9) -> nn.Module:
    """The net behind pictures (B, C, H, W) resized and padded at random (Xie et al. 2018).

    smallest: the least size, as a share of the picture's; padded with zeros to the full size. Each
    row has its own draw. More than a mask: its mean answer withstands somewhat more than the net.
    """
    return nn.Sequential(_RandomResize(smallest), deepcopy(net)).eval()


def _still_dropping(layer: nn.Module) -> nn.Module:
    assert isinstance(layer, nn.Dropout)
    return _AlwaysDropout(layer.p)


class _AlwaysDropout(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, training=True)


class _RandomResize(nn.Module):
    def __init__(self, smallest: float) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        size = self.smallest + (1 - self.smallest) * torch.rand(len(x), 1, 1).to(x)
        shift = (1 - size) * (2 * torch.rand(len(x), 2, 1).to(x) - 1)
        # A grid asks where a place comes from, so it is the inverse of resize and shift.
        whence = torch.cat((torch.eye(2).to(x).expand(len(x), -1, -1), -shift), 2) / size
        grid = F.affine_grid(whence, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)
