"""Attacks that must fool a model and stay unseen by a detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from withstand import attacks
from withstand.attacks._losses import loss
from withstand.attacks._problem import Problem
from withstand.data import from_arrays
from withstand.evaluate import evaluate
from withstand.models import Detecting, TorchModel
from withstand.threat import L2, Evading, Linf, Threat, Untargeted

FEATURES, EPS = 12, 0.2


def linear(weight: Tensor) -> nn.Linear:
    """Two classes whose scores differ by weight . x - 1."""
    net = nn.Linear(FEATURES, 2)
    with torch.no_grad():
        net.weight.copy_(torch.stack((weight, -weight)) / 2)
        net.bias.copy_(torch.tensor([-0.5, 0.5]))
    return net


def reachable(weight: Tensor, suspicion: Tensor, threshold: float, x: Tensor, eps: float) -> bool:
    """Whether some point of the Linf ball and of [0, 1] is the other class, by 1 %, and unseen."""
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    found = linprog(
        np.zeros(FEATURES),
        A_ub=np.stack([weight.numpy(), suspicion.numpy()]),
        b_ub=[0.99, threshold - 0.01],
        bounds=list(zip(low.tolist(), high.tolist(), strict=True)),
    )
    return bool(found.success)


def linear_problem(n: int) -> Problem:
    """Rows of the first class."""
    x, zero = torch.zeros(n, FEATURES), torch.zeros(n, dtype=torch.long)
    goal = Evading(Untargeted())
    return Problem(
        x=x, y=zero, key=zero, lane=zero, target=zero - 1, eps=x[:, 0], lower=x, upper=x,
        norm="linf", goal=goal, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_it_evades_a_linear_detector_wherever_that_can_be_done(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    weight = torch.rand(FEATURES, generator=g)
    # What fools the model raises the suspicion.
    suspicion = torch.rand(FEATURES, generator=g) - weight
    weight *= 2 / weight.sum()
    x = 0.5 + 0.3 * torch.rand(40, FEATURES, generator=g)
    y = torch.zeros(40, dtype=torch.long)
    threshold = float((x @ suspicion).quantile(0.9))
    model = Detecting(TorchModel(linear(weight)), lambda x: x @ suspicion, threshold=threshold)
    can = [reachable(weight, suspicion, threshold, row, EPS) for row in x]
    assert sum(can) > 0

    threat = Threat(region=Linf(EPS), goal=Evading(Untargeted()))
    result = attacks.run(attacks.OrthogonalPGD(restarts=2), model, x, y, threat)

    assert result.success[can].all()
    fooled = result.x_adv[result.success]
    assert (fooled @ weight < 1).all()
    assert (fooled @ suspicion <= threshold).all()


def test_in_l2_it_moves_along_the_plane_of_equal_suspicion() -> None:
    weight, suspicion = torch.zeros(FEATURES), torch.zeros(FEATURES)
    weight[0], weight[1], suspicion[0] = 2.0, 0.4, -1.0
    x = torch.full((1, FEATURES), 0.5)
    # The way straight down the margin is seen at once; the second feature alone is not.
    model = Detecting(TorchModel(linear(weight)), lambda x: x @ suspicion, threshold=-0.499)
    threat = Threat(region=L2(0.51), goal=Evading(Untargeted()))
    y = torch.zeros(1, dtype=torch.long)
    result = attacks.run(attacks.OrthogonalPGD(), model, x, y, threat)
    assert result.success.all()
    change = (result.x_adv - x)[0]
    assert change[1] < -0.45
    assert change[0].abs() < 0.01


def test_two_queries_a_step_are_spent() -> None:
    model = Detecting(
        TorchModel(linear(torch.full((FEATURES,), 4.0))), lambda x: x.sum(1), threshold=1e6
    )
    x, y = torch.full((3, FEATURES), 0.5), torch.zeros(3, dtype=torch.long)
    threat = Threat(region=Linf(0.01), goal=Evading(Untargeted()))
    ledger = attacks.run(attacks.OrthogonalPGD(steps=7), model, x, y, threat).ledger
    assert ledger.backwards.tolist() == [14, 14, 14]


def test_selective_fools_first_and_silences_then() -> None:
    scores = torch.tensor([[9.0, 1.0, -4.0], [2.0, 1.0, 3.0], [1.0, 2.0, -4.0], [1.0, 2.0, 3.0]])
    problem = linear_problem(len(scores))
    values = loss("selective", problem, scores.requires_grad_())
    assert values.tolist() == sorted(values.tolist())
    (slope,) = torch.autograd.grad(values.sum(), scores)
    # Row by row: while the model is right only its scores count, afterwards only the silence.
    assert (slope[:2, 2] == 0).all()
    assert (slope[:2, 1] > 0).all()
    assert (slope[2:, :2] == 0).all()
    assert (slope[2:, 2] > 0).all()


def test_an_evaluation_tries_all_three_objectives() -> None:
    suspicion = torch.rand(FEATURES, generator=torch.Generator().manual_seed(0))
    model = Detecting(
        TorchModel(linear(torch.full((FEATURES,), 2 / FEATURES))),
        lambda x: -(x @ suspicion),
        threshold=-2.9,
    )
    x = np.random.default_rng(0).uniform(0.55, 0.95, (60, FEATURES)).astype(np.float32)
    threat = Threat(region=Linf(0.26), goal=Evading(Untargeted()))
    report = evaluate(model, from_arrays(x, np.zeros(60, int)), threat, preset="smoke")
    told = [(stage.name, stage.settings.get("loss")) for stage in report.attacks[:4]]
    assert told[1:] == [("APGD", "margin"), ("APGD", "selective"), ("OrthogonalPGD", None)]
    assert 0 < report.robust_accuracy.value < 1
