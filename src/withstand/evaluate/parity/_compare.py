"""The answers of two pipelines to the same input, put into one unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..._errors import ModelError
from ._route import Route

Unit = Literal["scores", "probabilities", "labels"]
_CHUNK = 256
_LEAST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The served pipeline's answers to inputs x (N, ...), and how others are held against them.

    served: (N, K), or labels (N,), in the common unit; to_unit: brings the reference's there.
    """

    x: Tensor
    served: Tensor
    unit: Unit
    to_unit: Callable[[Tensor], Tensor]

    def reference(self, route: Route, x: Tensor | None = None) -> Tensor:
        """The answers of a route in the common unit; at the inputs themselves if x is not given."""
        return self.to_unit(asked(route, self.x if x is None else x))

    def gaps(self, route: Route, x: Tensor | None = None) -> Tensor:
        """Squared difference of each row (N,), averaged over scores; 0 or 1 for labels."""
        return gap(self.reference(route, x), self.served)

    def residual(self, route: Route) -> tuple[float, float]:
        """The total of a route's gaps, and a second figure that tells those of equal totals apart.

        Probabilities near 0 and 1 hide what their logarithms still show.
        """
        answers = self.reference(route)
        total = self.total(gap(answers, self.served))
        if self.unit != "probabilities":
            return total, total
        logs = [(p.double() + _LEAST).log() for p in (answers, self.served)]
        return total, float((logs[0] - logs[1]).abs().mean())

    def total(self, gaps: Tensor) -> float:
        """One figure for rows' gaps (N,): root mean square, or the share of labels that differ."""
        mean = float(gaps.mean())
        return mean if self.unit == "labels" else mean**0.5

    def take(self, rows: Tensor) -> Comparison:
        """The comparison at some of the inputs."""
        return Comparison(
            x=self.x[rows], served=self.served[rows], unit=self.unit, to_unit=self.to_unit
        )


def asked(route: Route, x: Tensor) -> Tensor:
    """The answers of a route at x (N, ...), in batches."""
    return torch.cat([route.answers(part) for part in torch.split(x, _CHUNK)])


def gap(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of each row's scores (N,), or whether its labels differ."""
    if one.shape != other.shape:
        raise ModelError(
            f"answers have shapes {tuple(one.shape)} and {tuple(other.shape)}; compare models of "
            "the same classes"
        )
    return (one != other).double() if one.ndim == 1 else (one - other).square().mean(1)


def common_unit(
    reference: Tensor, served: Tensor
) -> tuple[Unit, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The unit in which two answers (N, K) or (N,) can be compared, and the ways there.

    Labels where one side has only these, probabilities where one side has these or their logarithm,
    else scores as they are. Raises ModelError for different numbers of classes.
    """
    if min(reference.ndim, served.ndim) == 1:
        return "labels", _to_labels(reference), _to_labels(served)
    for name, answers in (("reference", reference), ("served model", served)):
        if not bool(torch.isfinite(answers).all()):
            bad = int((~torch.isfinite(answers)).any(1).sum())
            raise ModelError(
                f"the {name} answers {bad} of {len(answers)} inputs with NaN or infinity; check "
                "its weights and preprocessing on these inputs first"
            )
    widths = (_width(reference), _width(served))
    if widths[0] != widths[1]:
        if set(widths) == {1, 2}:
            return "probabilities", _to_probabilities(reference), _to_probabilities(served)
        raise ModelError(
            f"the reference answers with {widths[0]} scores, the served model with {widths[1]}; "
            "compare models of the same classes"
        )
    if _normalised(reference) or _normalised(served):
        return "probabilities", _to_probabilities(reference), _to_probabilities(served)
    return "scores", _as_is, _as_is


def labels_of(answers: Tensor) -> Tensor | None:
    """Labels (N,) that answers in the common unit mean; None for a single value, a regression's."""
    if answers.ndim == 1:
        return answers
    return None if answers.shape[1] == 1 else answers.argmax(1)


def _width(answers: Tensor) -> int:
    """How many classes the scores stand for."""
    return 2 if answers.shape[1] == 1 and _shares(answers) else answers.shape[1]


def _shares(answers: Tensor) -> bool:
    return bool(((answers >= 0) & (answers <= 1)).all())


def _normalised(answers: Tensor) -> bool:
    """Whether rows are probabilities or their logarithm."""
    if answers.shape[1] == 1:
        return _shares(answers)
    if _shares(answers):
        return bool(((answers.sum(1) - 1).abs() <= 1e-3).all())
    return bool((answers.logsumexp(1).abs() <= 1e-3).all()) and bool((answers <= 0).all())


def _to_probabilities(like: Tensor) -> Callable[[Tensor], Tensor]:
    if like.shape[1] == 1:
        chance = _as_is if _shares(like) else torch.sigmoid
        return lambda answers: torch.cat((1 - chance(answers), chance(answers)), 1)
    # Logarithms of probabilities are logits too.
    already = _normalised(like) and _shares(like)
    return _as_is if already else lambda answers: answers.softmax(1)


def _to_labels(like: Tensor) -> Callable[[Tensor], Tensor]:
    if like.ndim == 1:
        return _as_is
    if like.shape[1] > 1:
        return lambda answers: answers.argmax(1)
    middle = 0.5 if _shares(like) else 0.0
    return lambda answers: (answers[:, 0] > middle).long()


def _as_is(answers: Tensor) -> Tensor:
    return answers
