"""Models that take pictures with the channels last."""

from __future__ import annotations

from torch import Tensor, nn

from ._pipeline import Pipeline
from ._protocol import Model
from ._torch import TorchModel


class ToChannelsLast(nn.Module):
    """Pictures (B, C, H, W) as (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same values with their axes in the other order."""
        return x.permute(0, 2, 3, 1)


def channels_last(model: Model) -> Model:
    """A model of pictures (B, H, W, C), for attacks and data that have them as (B, C, H, W)."""
    step = ToChannelsLast()
    if isinstance(model, TorchModel) and model.preprocess is None:
        return TorchModel(model.net, domain=model.domain, preprocess=step)
    return Pipeline((step,), model, domain=model.domain)
