"""How fast a net learns, and when the attacker comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

Schedule = Callable[[float], float]


def cyclic(done: float) -> float:
    """Share of the learning rate: up from 0 for two fifths of all steps, then down to 0 (Wong et
    al. 2020, after Smith 2017)."""
    return done / 0.4 if done < 0.4 else (1 - done) / 0.6


def restarted(start: float) -> Schedule:
    """`cyclic` once before this share of all steps and once after it.

    For a delayed attacker, who else comes in when the rate is low already.
    """

    def schedule(done: float) -> float:
        return cyclic(done / start if done < start else (done - start) / (1 - start))

    return schedule


def flat(until: float) -> Schedule:
    """The whole learning rate up to this share of all steps, then down to 0.

    For losses that only begin when the radius has grown, as those of proofs do.
    """

    def schedule(done: float) -> float:
        return 1.0 if done < until else (1 - done) / (1 - until)

    return schedule


def constant(done: float) -> float:
    """The whole learning rate at every step."""
    return 1.0


def adam(rate: float = 2e-3) -> Callable[[Any], Optimizer]:
    """Makes Adam (Kingma and Ba 2015) with this learning rate for some parameters."""

    def make(parameters: Any) -> Optimizer:
        # Imported late: it brings in the compiler, which takes seconds.
        from torch.optim import Adam

        return Adam(parameters, rate)

    return make


def sgd(
    rate: float = 0.1, momentum: float = 0.9, decay: float = 5e-4
) -> Callable[[Any], Optimizer]:
    """Makes stochastic gradient descent with momentum and weight decay for some parameters."""

    def make(parameters: Any) -> Optimizer:
        from torch.optim import SGD

        return SGD(parameters, rate, momentum=momentum, weight_decay=decay)

    return make
