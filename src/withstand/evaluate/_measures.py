"""How visible the changes are, and how much the wrong answers cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .._errors import DataError
from ..stats import mean_within
from ._report import Severity, Spread

Array = NDArray[Any]


def ssim(x: Tensor, other: Tensor, span: float, window: int = 7) -> Tensor:
    """Structural similarity (B,) of pictures (B, C, H, W) (Wang et al. 2004, eq. 13).

    span: the range of values; windows are uniform, as large as fits up to `window`.
    """
    size = min(window, *x.shape[2:])

    def mean(values: Tensor) -> Tensor:
        pooled: Tensor = avg_pool2d(values, size, stride=1)
        return pooled

    x, other = x.double(), other.double()
    a, b = mean(x), mean(other)
    cells = size * size / max(size * size - 1, 1)
    var_a, var_b = (mean(x * x) - a * a) * cells, (mean(other * other) - b * b) * cells
    both = (mean(x * other) - a * b) * cells
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    share = (2 * a * b + c1) * (2 * both + c2)
    ratio: Tensor = share / ((a * a + b * b + c1) * (var_a + var_b + c2))
    return ratio.flatten(1).mean(1)


def perceptibility(x: Tensor, x_adv: Tensor, span: float) -> tuple[Spread, ...]:
    """Median and worst Linf, L2 and, for pictures, SSIM of the fooled samples' changes."""
    if not len(x):
        return ()
    delta = (x_adv - x).flatten(1).double()
    linf, l2 = delta.abs().amax(1), delta.square().sum(1).sqrt()
    found = [
        Spread(measure="Linf", median=float(linf.median()), worst=float(linf.max())),
        Spread(measure="L2", median=float(l2.median()), worst=float(l2.max())),
    ]
    if x.ndim == 4 and min(x.shape[2:]) >= 2:
        alike = torch.cat(
            [
                ssim(a, b, span)
                for a, b in zip(torch.split(x, 256), torch.split(x_adv, 256), strict=True)
            ]
        )
        found.append(Spread(measure="SSIM", median=float(alike.median()), worst=float(alike.min())))
    return tuple(found)


def check_severity(costs: Any, *answers: Array) -> Array:
    """Costs as a matrix (K, K), true class by answer.

    Raises DataError for one that does not cover the classes of labels and answers (N,).
    """
    matrix = np.asarray(costs, np.float64)
    classes = max(int(one.max()) for one in answers) + 1
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < classes:
        raise DataError(
            f"severity has shape {matrix.shape}; give a square matrix for {classes} classes, true "
            "class by answer"
        )
    return matrix


def severity_of(costs: Any, label: Array, clean: Array, adversarial: Array) -> Severity:
    """Mean and worst cost of the answers; raises DataError as `check_severity`."""
    matrix = check_severity(costs, label, clean, adversarial)
    under, ends = matrix[label, adversarial], (float(matrix.min()), float(matrix.max()))
    return Severity(
        clean_mean=mean_within(matrix[label, clean], *ends),
        robust_mean=mean_within(under, *ends),
        worst=float(under.max()),
    )
