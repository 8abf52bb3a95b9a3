"""How steeply the model's answer depends on its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..._errors import ConfigError, ModelError
from .._contract import Ask, Method, Needs, Observation, State
from ._answers import two


@dataclass(frozen=True, kw_only=True)
class GradientNorm(Method):
    """Logarithm of the norm of the loss's gradient towards the predicted class (Lust and Condurache
    2020, GraN), with respect to the input.

    norm: l1 or l2. Large near a decision boundary; strong attacks go where it is small. 1 forward
    and 1 backward. Its own gradient is whole only where the model's graph is at hand.
    """

    norm: Literal["l1", "l2"] = "l1"
    needs: ClassVar[Needs] = "gradients"
    reference: ClassVar[str] = "Lust and Condurache 2020"

    def __post_init__(self) -> None:
        if self.norm not in ("l1", "l2"):
            raise ConfigError(f"norm is {self.norm!r}; it is l1 or l2")

    @property
    def passes(self) -> float:
        return 2

    def fit(self, seen: Observation) -> State:
        self._logarithm(seen.ask, seen.x[:1])
        return {}

    def score(self, state: State, seen: Observation) -> Tensor:
        return self._logarithm(seen.ask, seen.x)

    def _logarithm(self, ask: Ask, x: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            x = x if wanted else x.detach().requires_grad_()
            scores = two(ask(x))
            if not scores.requires_grad:
                raise ModelError(
                    "the model's scores have no gradient with respect to the input; use a method "
                    "that needs scores only"
                )
            best = scores.argmax(1, keepdim=True)
            # -log p is softplus(-lead), whose gradient is sigmoid(-lead) times that of the lead: in
            # logarithms, since it is rounded to nothing where the model is sure.
            others = scores.scatter(1, best, -torch.inf).logsumexp(1)
            lead = scores.gather(1, best)[:, 0] - others
            (slope,) = torch.autograd.grad(lead.sum(), x, create_graph=wanted)
            length: Tensor = slope.flatten(1).norm(p=1 if self.norm == "l1" else 2, dim=1)
            out: Tensor = logsigmoid(-lead) + length.clamp_min(1e-30).log()
        return out if wanted else out.detach()
