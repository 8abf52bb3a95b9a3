"""The density of a few numbers, as a mixture of normal distributions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._contract import State

_FLOOR = 1e-3
_ROWS_FOR_EACH = 20


def mixture(numbers: Tensor, components: int) -> State:
    """A mixture of at most so many normal distributions for rows (N, F), found by EM.

    Each of them has twenty rows for each number at least, so that few rows give a single one.
    Features are brought to one scale first, and no variance is below a thousandth of it.
    """
    from sklearn.mixture import GaussianMixture

    centre, scale = numbers.double().mean(0), numbers.double().std(0).clamp_min(1e-12)
    rows, width = numbers.shape
    most = max(1, min(components, rows // (_ROWS_FOR_EACH * width)))
    found = GaussianMixture(most, reg_covar=_FLOOR, random_state=0, max_iter=100, tol=1e-2)
    found.fit(((numbers.double() - centre) / scale).numpy())
    whitening = torch.from_numpy(found.precisions_cholesky_) / scale[:, None]
    means = torch.from_numpy(found.means_) * scale + centre
    sizes = torch.linalg.slogdet(whitening).logabsdet
    weights = torch.from_numpy(found.weights_).log() + sizes - 0.5 * width * math.log(2 * math.pi)
    return {
        "weights": weights.float(),
        # What is subtracted after whitening, so that a row is whitened once for each.
        "means": torch.einsum("kf,kfg->kg", means, whitening).float(),
        "whitening": whitening.float(),
    }


def rareness(state: State, numbers: Tensor) -> Tensor:
    """The negated logarithm of the density at rows (B, F), (B,)."""
    white = torch.einsum("bf,kfg->bkg", numbers, state["whitening"]) - state["means"]
    return -(state["weights"] - 0.5 * white.square().sum(2)).logsumexp(1)
