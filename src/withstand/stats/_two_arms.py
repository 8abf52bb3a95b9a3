"""Two arms that answer side by side: does one of them do worse, looked at as often as one likes.

All functions take arrays that broadcast: how often something happened in both arms of a pair, in
the first alone, in the second alone, in neither. A pair is one input that both arms answered;
outcomes of independent inputs may be paired up too, if the way does not depend on the outcomes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

_STAKES = 64


def log_below(
    both: ArrayLike, first: ArrayLike, second: ArrayLike, neither: ArrayLike, *, ratio: float,
    more: float = 0.0,
) -> Array:  # fmt: skip
    """Logarithm of the evidence that the first arm's share is below ratio x the second's + more.

    An e-value against "the first's share is at least that": what bettors with stakes between none
    and all, a 64th apart, have made of 1 by betting on the second's outcome x ratio + more - the
    first's, a mean of bounded variables (Waudby-Smith and Ramdas 2024; the mixture is Robbins'
    1970). Where the null holds at every pair, given those before, it ever reaches 1 / alpha with a
    probability of at most alpha (Ville's inequality). The pairs may depend on one another.
    """
    return _log_wealth((both, first, second, neither), ratio, more, below=True)


def log_above(
    both: ArrayLike, first: ArrayLike, second: ArrayLike, neither: ArrayLike, *, ratio: float,
    more: float = 0.0,
) -> Array:  # fmt: skip
    """Logarithm of the evidence that the first arm's share is above ratio x the second's + more.

    The other side of `log_below`, under the same promise.
    """
    return _log_wealth((both, first, second, neither), ratio, more, below=False)


def _log_wealth(
    counts: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike],
    ratio: float,
    more: float,
    *,
    below: bool,
) -> Array:
    each = [np.asarray(one, float) for one in counts]
    if len({one.shape for one in each}) > 1:
        each = list(np.broadcast_arrays(*each))
    logs = np.stack(each, axis=-1) @ _growth(ratio, more, below)
    most = logs.max(axis=-1, keepdims=True)
    mean = np.exp(logs - most).mean(axis=-1)
    return np.asarray(most[..., 0] + np.log(mean))


@lru_cache(maxsize=64)
def _growth(ratio: float, more: float, below: bool) -> Array:
    """Logarithm of what each stake makes of 1 at each of the four outcomes (4, stakes)."""
    worse = np.array([1.0 - ratio, 1.0, -ratio, 0.0]) - more
    gain = -worse if below else worse
    loss = -gain.min()
    # Whoever bets on what cannot be lost would be sure for nothing: such a margin is none.
    if loss <= 0:
        return np.zeros((4, _STAKES))
    stakes = (np.arange(_STAKES) + 0.5) / _STAKES / loss
    return np.asarray(np.log1p(stakes * gain[:, None]))
