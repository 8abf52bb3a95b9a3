"""What is looked at before an attack is worth its cost."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import DataError, ModelError
from ..models import Model
from ..stats import wilson
from ..threat import Goal, Targeted, Untargeted, check_goal


def check_domain(model: Model, x: Tensor) -> None:
    """Raise DataError for inputs outside the model's domain, which often are normalised."""
    low, high = torch.as_tensor(model.domain.lower), torch.as_tensor(model.domain.upper)
    values = x.double()
    if bool((values < low).any()) or bool((values > high).any()):
        raise DataError(
            f"inputs span [{float(x.min()):.6g}, {float(x.max()):.6g}], the model's domain is "
            f"[{float(low.min()):.6g}, {float(high.max()):.6g}]; give raw inputs and put "
            "normalisation into the model's preprocess, set data.scale, or correct the domain"
        )


def check_clean(goal: Goal, clean: Tensor, answers: Tensor, y: Tensor, classes: int) -> None:
    """Raise ModelError or DataError for clean answers that nobody should attack.

    clean: scores (B, K) or labels (B,); answers: what the goal reads from them.
    """
    scored = clean.is_floating_point()
    if scored and not bool(torch.isfinite(clean).all()):
        bad = int((~torch.isfinite(clean)).flatten(1).any(1).sum())
        raise ModelError(
            f"the model answers {bad} of {len(clean)} clean inputs with NaN or infinity; check "
            "its weights and preprocessing"
        )
    check_goal(goal, clean, y)
    if not isinstance(goal, Untargeted | Targeted):
        return
    if len(y) >= 20 and bool((answers == answers[0]).all()) and bool((y != y[0]).any()):
        raise ModelError(
            f"one answer: the model says class {int(answers[0])} to all {len(y)} inputs; check its "
            "weights and preprocessing"
        )
    right = int((answers == y).sum())
    accuracy, chance = wilson(right, len(y)), 1 / classes
    # Of one class alone, as the frauds, few may be found by a model that is far from guessing.
    mixed = len(y) >= 20 and bool((y != y[0]).any())
    by_chance = accuracy.low <= chance and accuracy.value < 1.5 * chance
    if right == 0 or (mixed and by_chance):
        why = _in_another_order(answers, y) or (
            "check the order of the classes (data.classes), the scale of the data (data.scale) "
            "and the model's preprocessing"
        )
        raise DataError(f"clean accuracy is {accuracy}, chance is {100 * chance:.1f} %; {why}")


def _in_another_order(answers: Tensor, y: Tensor) -> str | None:
    """What to do where the answers (N,) name the labels (N,), but by other numbers."""
    from scipy.optimize import linear_sum_assignment

    size = 1 + int(max(answers.max(), y.max()))
    pairs = torch.bincount((answers * size + y).cpu(), minlength=size * size)
    table = pairs.reshape(size, size).numpy()
    said, meant = linear_sum_assignment(table, maximize=True)
    # An order fitted to a few rows names some of them by chance.
    matched = int(table[said, meant].sum())
    if wilson(max(0, matched - size), len(y)).low <= 0.5:
        return None
    moved = [(a, b) for a, b in zip(said, meant, strict=True) if a != b and table[a, b]]
    told = ", ".join(f"the model's class {a} is the data's {b}" for a, b in moved[:3])
    more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    return (
        f"{told}{more}: in that order it would be {100 * matched / len(y):.0f} %; list "
        "data.classes in the model's order, or number the labels so"
    )
