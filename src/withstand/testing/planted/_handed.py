"""Sound networks that are handed in in the wrong state or form."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from ._surgery import NORMS, named, rewired, weighted


def training_mode(net: nn.Module, *, p: float = 0.3) -> nn.Module:
    """The net handed in in training mode, sound again after `eval()`.

    p: the share dropped before the last layer with weights, where the net has no dropout or batch
    norm that tells the modes apart; raises ModelError for a net without such layers.
    """
    if named(net, [nn.Dropout, *NORMS]):
        return deepcopy(net).train()
    return rewired(net, weighted(net)[-1:], lambda last: nn.Sequential(nn.Dropout(p), last)).train()


def batch_norm_training(net: nn.Module, x: Tensor) -> nn.Module:
    """The net with batch norm that goes by the batch's statistics in eval mode too.

    x: inputs (N, ...); a net without batch norm gets one behind its first layer with weights, which
    on all of x together changes nothing. Raises ModelError for a net without such a layer.
    """
    if not named(net, NORMS):
        net = _with_batch_norm(net, x)
    return rewired(net, named(net, NORMS), _without_statistics)


def softmax_output(net: nn.Module) -> nn.Module:
    """The net answering with probabilities, where logits are expected."""
    return nn.Sequential(deepcopy(net), nn.Softmax(dim=1)).eval()


def constant(net: nn.Module) -> nn.Module:
    """The net answering every input as it answers a grey one."""
    return _Constant(deepcopy(net)).eval()


def bf16_stem(net: nn.Module) -> nn.Module:
    """The net with its first layer, and so its input, in bfloat16: steps of 1/256 just below 1.

    Raises ModelError for a net without convolutions and linear layers.
    """
    return rewired(net, weighted(net)[:1], _Bfloat16)


def _with_batch_norm(net: nn.Module, x: Tensor) -> nn.Module:
    """The net with a batch norm that does nothing as long as it goes by the statistics of x."""
    normed = rewired(net, weighted(net)[:1], lambda first: nn.Sequential(first, _norm_for(first)))
    norm = normed.get_submodule(named(normed, NORMS)[0])
    assert isinstance(norm, NORMS)
    norm.train()
    with torch.no_grad():
        normed(x)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean)
    return normed


def _norm_for(layer: nn.Module) -> nn.Module:
    kinds = {nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
    kind = next((k for of, k in kinds.items() if isinstance(layer, of)), nn.BatchNorm1d)
    # Momentum None averages over all that was seen instead of forgetting exponentially.
    norm: nn.Module = kind(layer.weight.shape[0], momentum=None).to(layer.weight)  # type: ignore
    return norm


def _without_statistics(norm: nn.Module) -> nn.Module:
    assert isinstance(norm, NORMS)
    norm.track_running_stats = False
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return norm


class _Constant(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(torch.full_like(x, 0.5))
        # Kernels round differently with the place in the batch; one answer is one answer.
        return out[:1].expand(len(x), -1)


class _Bfloat16(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.bfloat16())
        return out.to(x.dtype)
