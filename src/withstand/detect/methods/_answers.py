"""How far one answer of a model lies from another."""

from __future__ import annotations

import torch
from torch import Tensor


def probabilities(scores: Tensor) -> Tensor:
    """Class probabilities (B, K) of scores (B, K), or (B, 2) where the model gives one logit."""
    return two(scores).softmax(1)


def two(scores: Tensor) -> Tensor:
    """Scores of two classes where the model gives one logit."""
    return torch.cat((torch.zeros_like(scores), scores), 1) if scores.shape[1] == 1 else scores


def l1(p: Tensor, q: Tensor) -> Tensor:
    """L1 distance (B,) of probabilities (B, K), 0 to 2."""
    return (p - q).abs().sum(1)


def divergence(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Jensen-Shannon divergence (B,) in nats of several answers, given as scores (M, B, K).

    The mean Kullback-Leibler divergence to their mean; 0 to log M.
    """
    logs = torch.stack([two(part) for part in scores]).div(temperature).log_softmax(2)
    mean = logs.logsumexp(0) - torch.tensor(float(len(logs))).log()
    # The mean may underflow only where every part does, and then their weight is zero.
    return (logs.exp() * (logs - mean)).sum(2).mean(0).clamp_min(0)
