"""What detectors that need no pass of their own add to the model's time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measure import Rows, timed
from networks import mnist, network
from torch import Tensor

from withstand import detect
from withstand.models import TorchModel

ROUNDS = {1: 400, 256: 80}


def cost() -> Rows:
    """A detector's score, the model's own forward included, over the forward alone: CPU time.

    Small CNN; in turn, the median of the ratios of 400 single inputs and 80 batches of 256, and the
    median CPU milliseconds.
    """
    model = TorchModel(network("standard").eval())
    x, y = mnist("train", 3000)
    methods = {
        "confidence": detect.Confidence(),
        "margin": detect.Confidence(of="margin"),
        "energy": detect.Confidence(of="energy"),
        "Mahalanobis, 3 layers": detect.Mahalanobis(),
    }
    detectors = {name: detect.fit(method, model, x, y) for name, method in methods.items()}
    tried: dict[str, Callable[[Tensor], Tensor]] = {"the model alone": model.scores}
    tried |= {name: detector.score for name, detector in detectors.items()}
    times = {n: _interleaved(tried, mnist("test", n)[0], rounds) for n, rounds in ROUNDS.items()}
    return [
        {
            "detector": name,
            "single, ms": f"{1e3 * np.median(times[1][name]):.2f}",
            "batch of 256, ms": f"{1e3 * np.median(times[256][name]):.2f}",
            "batch, factor": f"{_factor(times[256], name):.3f}",
        }
        for name in tried
    ]


def _interleaved(
    tried: dict[str, Callable[[Tensor], Tensor]], x: Tensor, rounds: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in tried}
    with torch.no_grad():
        for _ in range(rounds):
            for name, score in tried.items():
                found[name].append(timed(partial(score, x)).cpu)
    return found


def _factor(times: dict[str, list[float]], name: str) -> float:
    pairs = zip(times[name], times["the model alone"], strict=True)
    return float(np.median([one / alone for one, alone in pairs]))
