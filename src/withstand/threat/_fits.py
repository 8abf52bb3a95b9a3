"""Whether a goal can be judged: the model's answers and the labels have the form that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import DataError, ThreatError
from ._goal import Evading, Goal, MultiLabel, Regression, Targeted, Untargeted

if TYPE_CHECKING:
    from torch import Tensor


def check_goal(goal: Goal, answer: Tensor, y: Tensor) -> None:
    """Raise DataError or ThreatError where a goal cannot be judged on answers and labels y.

    answer: scores (B, K), or labels (B,), at clean inputs. Goals of others are not looked at.
    """
    if isinstance(goal, Evading):
        # The last column is the detector's, beside the scores or beside the label.
        own = answer[:, :-1] if answer.is_floating_point() else answer[:, 0]
        check_goal(goal.goal, own, y)
    elif isinstance(goal, Untargeted | Targeted):
        _check_classes(goal, answer, y)
    elif isinstance(goal, Regression):
        _check_values(answer, y)
    elif isinstance(goal, MultiLabel):
        _check_many(goal, answer, y)


def _check_classes(goal: Untargeted | Targeted, answer: Tensor, y: Tensor) -> None:
    if y.ndim != 1 or y.is_floating_point():
        one_hot = "give y.argmax(1) if they are one-hot, " if y.ndim == 2 else ""
        raise DataError(
            f"labels have shape {tuple(y.shape)} and type {y.dtype}; this goal needs one whole "
            f"number for each input, {one_hot}or set goal to multilabel or regression"
        )
    if answer.ndim != 2:
        return
    classes, low, high = answer.shape[1], int(y.min()), int(y.max())
    if classes == 1:
        raise DataError(
            "the model answers with one number for each input, which are no two classes by "
            "themselves; attack adapt(model, scores)[0] of withstand.models, or use evaluate(...)"
        )
    if not 0 <= low <= high < classes:
        raise DataError(
            f"labels run from {low} to {high}, the model has {classes} classes; give labels from "
            f"0 to {classes - 1}"
        )
    if isinstance(goal, Targeted) and goal.target >= classes:
        raise ThreatError(
            f"target is {goal.target}, the model has {classes} classes; give one from 0 to "
            f"{classes - 1}"
        )


def _check_values(answer: Tensor, y: Tensor) -> None:
    if not answer.is_floating_point():
        raise ThreatError(
            "goal regression reads a number, the model answers with labels; set goal to untargeted "
            "or targeted, or access to scores"
        )
    if answer.numel() != len(answer):
        raise ThreatError(
            f"goal regression reads one number for each input, the model gives "
            f"{answer.shape[1]}; set goal to untargeted or targeted for classes"
        )
    if y.ndim != 1:
        raise DataError(
            f"labels have shape {tuple(y.shape)}; goal regression needs one number for each input"
        )


def _check_many(goal: MultiLabel, answer: Tensor, y: Tensor) -> None:
    if answer.ndim != 2 or answer.shape != y.shape:
        raise DataError(
            f"labels have shape {tuple(y.shape)}, the model's answers {tuple(answer.shape)}; goal "
            "multilabel needs a 0 or 1 for each of the same outputs, or set goal to untargeted"
        )
    if goal.flips > y.shape[1]:
        raise ThreatError(
            f"flips is {goal.flips}, there are {y.shape[1]} labels; give at most so many"
        )
