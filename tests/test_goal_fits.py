"""Goals that do not fit the model or the labels are one line, before anything is attacked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from withstand._errors import DataError, ThreatError, WithstandError
from withstand.attacks import APGD, Square, run
from withstand.certify import Bounds, Smoothing, certify
from withstand.data import from_arrays
from withstand.evaluate import evaluate
from withstand.harden import PGD, Standard, harden
from withstand.models import FunctionModel, TorchModel
from withstand.threat import (
    L2,
    Evading,
    Linf,
    MultiLabel,
    Regression,
    Targeted,
    Threat,
    Untargeted,
    check_goal,
)
from withstand.workflows import Entry, compare

X = torch.rand(24, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
ONE_HOT, SCORES = nn.functional.one_hot(Y, 3).float(), torch.zeros(24, 3)
MODEL = TorchModel(nn.Linear(4, 3), domain=(0, 1))
UNFIT: dict[str, tuple[Any, Tensor, Tensor, str]] = {
    "one-hot": (Untargeted(), SCORES, ONE_HOT, r"give y.argmax\(1\) if they are one-hot"),
    "one-hot of a target": (Targeted(1), SCORES, ONE_HOT, "needs one whole number for each"),
    "values": (Untargeted(), SCORES, torch.rand(24), "set goal to multilabel or regression"),
    "labels beyond": (Untargeted(), SCORES, Y + 1, "run from 1 to 3, the model has 3 classes"),
    "labels below": (Untargeted(), SCORES, Y - 1, "run from -1 to 1, the model has 3 classes"),
    "target beyond": (Targeted(3), SCORES, Y, "target is 3, the model has 3 .* from 0 to 2"),
    "classes as values": (Regression(0.1), SCORES, Y, "the model gives 3; set goal to untarg"),
    "labels as values": (Regression(0.1), Y, torch.rand(24), "the model answers with labels"),
    "values by two": (Regression(0.1), SCORES[:, :1], ONE_HOT[:, :1], r"have shape \(24, 1\)"),
    "classes as many": (MultiLabel(), SCORES, Y, r"shape \(24,\), .* answers \(24, 3\)"),
    "fewer of many": (MultiLabel(), SCORES, ONE_HOT[:, :2], "of the same outputs"),
    "too many flips": (MultiLabel(4), SCORES, ONE_HOT, "flips is 4, there are 3 labels"),
    "unseen too": (Evading(Targeted(3)), torch.zeros(24, 4), Y, "target is 3, the model has 3"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_goal_that_cannot_be_judged_is_one_line(name: str) -> None:
    goal, answer, y, words = UNFIT[name]
    with pytest.raises(WithstandError, match=words) as caught:
        check_goal(goal, answer, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("goal", "answer", "y"),
    [
        (Untargeted(), SCORES, Y), (Untargeted(), Y, Y + 5), (Targeted(2), SCORES, Y),
        (Targeted(7), Y, Y), (MultiLabel(3), SCORES, ONE_HOT),
        (MultiLabel(), Y[:, None], Y[:, None]),
        (Regression(0.1), torch.rand(24), torch.rand(24)), (Regression(0.1), SCORES[:, :1], Y),
        (Evading(Targeted(2)), torch.zeros(24, 4), Y),
        (Evading(Targeted(7)), torch.stack((Y, Y), 1), Y),
    ],
)  # fmt: skip
def test_a_goal_that_can_be_judged_is_let_through(goal: Any, answer: Tensor, y: Tensor) -> None:
    check_goal(goal, answer, y)


@pytest.mark.parametrize("attack", [APGD(steps=2), Square(queries=10)])
def test_an_attack_says_so_before_it_begins(attack: Any) -> None:
    for goal, y in ((Targeted(3), Y), (Regression(0.1), Y), (Untargeted(), ONE_HOT)):
        with pytest.raises((DataError, ThreatError)):
            run(attack, MODEL, X, y, Threat(region=Linf(0.1), goal=goal))


@pytest.mark.parametrize("access", ["gradients", "scores", "labels"])
def test_an_evaluation_says_so_before_it_begins(access: Any) -> None:
    for goal, y in ((Regression(0.1), Y), (Untargeted(), ONE_HOT), (MultiLabel(), Y)):
        data = from_arrays(X.numpy(), y.numpy())
        with pytest.raises((DataError, ThreatError), match="goal"):
            evaluate(MODEL, data, Threat(region=Linf(0.1), goal=goal, access=access))


UNJUDGED = {
    "one-hot": (Untargeted(), ONE_HOT),
    "values": (Untargeted(), torch.rand(24)),
    "labels beyond": (Untargeted(), Y + 1),
    "labels below": (Untargeted(), Y - 1),
    "target beyond": (Targeted(3), Y),
    "classes as values": (Regression(0.1), Y),
    "classes as many": (MultiLabel(), Y),
}


@pytest.mark.parametrize("name", UNJUDGED)
@pytest.mark.parametrize("method", [Smoothing(sigma=0.25, draws=40, select=2), Bounds()])
def test_nothing_is_certified_for_a_goal_that_cannot_be_judged(name: str, method: Any) -> None:
    goal, y = UNJUDGED[name]
    ball = L2(0.1) if isinstance(method, Smoothing) else Linf(0.1)
    data = from_arrays(X.numpy(), y.numpy())
    with pytest.raises((DataError, ThreatError), match=r"give|set goal|one class") as caught:
        certify(MODEL, data, Threat(region=ball, goal=goal), method)
    assert "\n" not in str(caught.value)


def test_a_model_of_labels_is_certified_for_what_it_answers() -> None:
    only = FunctionModel(lambda x: np.zeros(len(x), int), returns="labels")
    data, threat = from_arrays(X.numpy(), (Y + 1).numpy()), Threat(region=L2(0.1))
    method = Smoothing(sigma=0.25, draws=40, select=2)
    told = certify(only, data, threat, method).certificates
    assert {each.outcome for each in told} == {"wrong"}
    with pytest.raises(DataError, match="one-hot"):
        certify(only, from_arrays(X.numpy(), ONE_HOT.numpy()), threat, method)


@pytest.mark.parametrize("name", UNJUDGED)
def test_nothing_is_compared_for_a_goal_that_cannot_be_judged(name: str) -> None:
    goal, y = UNJUDGED[name]
    data = from_arrays(X.numpy(), y.numpy())
    with pytest.raises((DataError, ThreatError), match=r"give|set goal|goal multilabel needs"):
        compare({"bare": Entry(model=MODEL)}, data, Threat(region=Linf(0.1), goal=goal))


@pytest.mark.parametrize("name", ["one-hot", "values", "labels beyond", "labels below"])
@pytest.mark.parametrize("recipe", [Standard(), PGD(region=Linf(0.1), steps=1)])
def test_nothing_is_trained_on_labels_that_are_no_classes_of_the_model(
    name: str, recipe: Any
) -> None:
    data = from_arrays(X.numpy(), UNJUDGED[name][1].numpy())
    with pytest.raises(DataError, match=r"one class for each row|y runs from .* give labels"):
        harden(MODEL, data, recipe, epochs=1)


def test_labels_that_are_held_out_are_classes_of_the_model_too() -> None:
    data, other = (from_arrays(X.numpy(), y.numpy()) for y in (Y, Y + 1))
    with pytest.raises(DataError, match="y runs from 0 to 3"):
        harden(MODEL, data, Standard(), epochs=1, held_out=other)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X.clone().requires_grad_(), Y, "x is no array: Can't call numpy.* requires grad"),
        (X, torch.rand(24).requires_grad_(), "y is no array"),
        (X.bfloat16(), Y, "x is no array: .*BFloat16"),
        ([[1.0, 2.0], [3.0]], [0, 1], "x is no array: .*; give a numpy array"),
    ],
)
def test_what_is_no_array_is_one_line(x: Any, y: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        from_arrays(x, y)
    assert "\n" not in str(caught.value)
    assert np.array_equal(from_arrays(X, Y).x, X.numpy())
