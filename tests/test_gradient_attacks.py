"""Minimum-norm attacks against closed forms, and the mathematics below them against solvers."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from networks import Sound
from scipy.optimize import LinearConstraint, linprog, minimize, minimize_scalar
from torch import Tensor, nn

from withstand import attacks
from withstand.attacks._apgd_l1 import _phase
from withstand.attacks._ball import project
from withstand.attacks._losses import loss
from withstand.attacks._pdpgd import proximal
from withstand.attacks._plane import onto_plane
from withstand.models import TorchModel
from withstand.threat import (
    L0,
    L1,
    L2,
    Frozen,
    Goal,
    Linf,
    MultiLabel,
    Regression,
    Targeted,
    Threat,
    Untargeted,
)

BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
WEIGHT = torch.tensor([3.0, -4.0, 0.0])
# The margin is 2: the distances are 2 over the dual norm of the weight.
DISTANCE = {"linf": 2 / 7, "l2": 2 / 5, "l1": 2 / 4, "l0": 1.0}
EXACT = [
    *((attacks.FAB(steps=20), norm) for norm in ("linf", "l2", "l1")),
    *((attacks.FAB(steps=20, targets=1), norm) for norm in ("linf", "l2", "l1")),
    (attacks.DDN(steps=300), "l2"),
    (attacks.CarliniWagner(steps=150, searches=9), "l2"),
    (attacks.DeepFool(), "linf"),
    (attacks.DeepFool(), "l2"),
    (attacks.DeepFool(), "l1"),
    (attacks.SuperDeepFool(steps=30), "l2"),
    (attacks.SigmaZero(steps=200), "l0"),
    *((attacks.PDPGD(steps=500), norm) for norm in ("linf", "l2", "l1", "l0")),
    *((attacks.ALMA(steps=300), norm) for norm in ("l2", "l1")),
]


def linear(classes: int = 2) -> TorchModel:
    net = nn.Linear(3, classes, bias=False)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1] = WEIGHT
    return TorchModel(net, domain=(-10, 10))


@pytest.mark.parametrize(("attack", "norm"), EXACT, ids=lambda value: str(value).split("(")[0])
def test_the_distance_of_a_linear_model(attack: attacks.Attack, norm: str) -> None:
    x, y = torch.tensor([[2 / 3, 0.0, 0.0]]), torch.tensor([1])
    threat = Threat(region=BALLS[norm](torch.inf))
    found = float(attacks.run(attack, linear(), x, y, threat).distance)
    assert DISTANCE[norm] - 1e-6 <= found <= 1.06 * DISTANCE[norm]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_feature_that_may_not_move_leaves_its_share_to_the_others(norm: str) -> None:
    x, y = torch.tensor([[2 / 3, 0.0, 0.0]]), torch.tensor([1])
    region = BALLS[norm](torch.inf) & Frozen((1,))
    result = attacks.run(attacks.FAB(steps=20), linear(), x, y, Threat(region=region))
    assert float(result.distance) == pytest.approx(2 / 3, rel=0.02)
    assert float(result.x_adv[0, 1]) == 0


@pytest.mark.parametrize(
    "name",
    [
        "ALMA",
        "DDN",
        "FAB",
        "FMN",
        "PDPGD",
        "SuperDeepFool",
        pytest.param("CarliniWagner", marks=pytest.mark.slow),
    ],
)
def test_goals_without_a_wrong_class(name: str) -> None:
    attack = attacks.registry()[name]()
    x = torch.tensor([[2 / 3, 0.0, 0.0]])
    far = {"region": L2(torch.inf)}
    flip = attacks.run(attack, linear(), x, torch.tensor([1]), Threat(**far, goal=Targeted(0)))
    assert 0.4 <= float(flip.distance) <= 0.45
    if name != "DDN":
        # The other label's score stays far below 0.
        quiet = TorchModel(nn.Sequential(linear().net, _Lowered()), domain=(-10, 10))
        y = torch.tensor([[0.0, 1.0]])
        labels = attacks.run(attack, quiet, x, y, Threat(**far, goal=MultiLabel()))
        assert 0.4 <= float(labels.distance) <= 0.45
        single = TorchModel(nn.Sequential(linear().net, _Last()), domain=(-10, 10))
        off = attacks.run(attack, single, x, torch.tensor([2.0]), Threat(**far, goal=Regression(1)))
        assert 0.2 <= float(off.distance) <= 0.23


class _Lowered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - torch.tensor([50.0, 0.0])


class _Last(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1:]


def boxed(norm: str, rows: int = 8, features: int = 6) -> tuple[attacks.Problem, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(rows, features, generator=generator)
    zero = torch.zeros(rows, dtype=torch.long)
    problem = attacks.Problem(
        x=x, y=zero, key=zero, lane=zero, target=zero, eps=torch.ones(rows),
        lower=torch.zeros_like(x), upper=torch.ones_like(x), norm=norm,
        goal=Threat(region=Linf(1)).goal, seed=0,
    )  # fmt: skip
    return problem, torch.randn(rows, features, generator=generator)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("drop", [0.05, 0.6])
def test_the_plane_is_reached_by_the_smallest_change(norm: str, drop: float) -> None:
    problem, gradient = boxed(norm)
    moved = onto_plane(problem, problem.x, gradient, torch.full((8,), drop))
    change = (moved - problem.x).double().numpy()
    assert bool(((moved >= 0) & (moved <= 1)).all())
    for i in range(8):
        x, g = problem.x[i].double().numpy(), gradient[i].double().numpy()
        deepest = np.where(g > 0, g * x, -g * (1 - x)).sum()
        assert -g @ change[i] == pytest.approx(min(drop, deepest), abs=1e-5)
        if drop >= deepest:
            continue
        ours = {
            "linf": np.abs(change[i]).max(),
            "l2": np.linalg.norm(change[i]),
            "l1": np.abs(change[i]).sum(),
        }[norm]
        assert ours <= _least(norm, x, g, drop) * (1 + 1e-4) + 1e-6


def _least(norm: str, x: Any, g: Any, drop: float) -> float:
    """The length of the smallest change in the box by a solver."""
    n = len(x)
    if norm == "l2":
        found = minimize(
            lambda d: d @ d,
            np.where(g > 0, -x, 1 - x) / 2,
            jac=lambda d: 2 * d,
            bounds=list(zip(-x, 1 - x, strict=True)),
            constraints=LinearConstraint(-g[None], drop, drop),
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-14},
        )
        return float(np.sqrt(found.fun))
    # Change d, and bounds t on its parts: their sum in L1, one for all in Linf.
    parts = 1 if norm == "linf" else n
    bound = np.ones((n, 1)) if norm == "linf" else np.eye(n)
    limits = np.block([[np.eye(n), -bound], [-np.eye(n), -bound]])
    found = linprog(
        np.concatenate((np.zeros(n), np.ones(parts))),
        A_ub=limits,
        b_ub=np.zeros(2 * n),
        A_eq=np.concatenate((-g, np.zeros(parts)))[None],
        b_eq=[drop],
        bounds=[*zip(-x, 1 - x, strict=True), *[(0, None)] * parts],
    )
    return float(found.fun)


@pytest.mark.parametrize("power", [1.0, 2 / 3])
def test_proximal_points_of_sums_are_their_minimum(power: float) -> None:
    v = torch.tensor([[-2.0, -0.7, 0.05, 0.4, 3.0]])
    t = torch.tensor([[0.1, 0.3, 0.2, 0.5, 0.4]])
    found = proximal("l1" if power == 1 else "l0", v, t)[0]
    for value, weight, z in zip(v[0].tolist(), t[0].tolist(), found.tolist(), strict=True):

        def cost(z: float, value: float = value, weight: float = weight) -> float:
            return (z - value) ** 2 / 2 + weight * abs(z) ** power

        grid = np.linspace(-4, 4, 160_001)
        least = min(cost(g) for g in (grid[np.argmin([cost(g) for g in grid])], 0.0))
        assert cost(z) <= least + 1e-5


def test_proximal_points_of_the_largest_part_are_their_minimum() -> None:
    v, t = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.8]])
    found = proximal("linf", v, t)[0].numpy()

    def cost(z: Any) -> float:
        return float(((z - v[0].numpy()) ** 2).sum() / 2 + 0.8 * np.abs(z).max())

    generator = np.random.default_rng(0)
    for _ in range(200):
        direction = generator.normal(size=3)
        along = minimize_scalar(lambda s, d=direction: cost(found + s * d), bounds=(-1, 1))
        assert cost(found) <= along.fun + 1e-6


def test_one_target_is_planned_too() -> None:
    asked: list[int] = []

    class Spy(attacks.APGDT):
        def plan(self, problem: attacks.Problem, ask: attacks.Ask) -> Tensor | None:
            asked.append(len(problem))
            return super().plan(problem, ask)

    x, y = torch.rand(4, 3), torch.ones(4, dtype=torch.long)
    x[:, 0], x[:, 1] = 1.0, 0.0
    attacks.run(Spy(steps=2, targets=1), linear(3), x, y, Threat(region=Linf(0.01)))
    assert asked == [4]


def test_the_nearest_point_with_few_changes_is_found_in_the_box() -> None:
    problem, moves = boxed("l0")
    points = problem.x + 2 * moves
    for most in range(7):
        found = project(problem, points, torch.full((8,), float(most)))
        assert bool(((found >= 0) & (found <= 1)).all())
        assert bool(((found != problem.x).sum(1) <= most).all())
        kept = torch.tensor(list(combinations(range(6), most)), dtype=torch.long)
        chosen = torch.zeros(len(kept), 6, dtype=torch.bool).scatter_(1, kept, True)
        tried = torch.where(chosen[:, None], points.clamp(0, 1), problem.x)
        least = (tried - points).square().sum(2).amin(0)
        torch.testing.assert_close((found - points).square().sum(1), least)


def test_the_end_of_ddn_leaves_less_than_its_steps_do() -> None:
    x, y = torch.linspace(0.6, 0.9, 8)[:, None] * torch.tensor([1.0, 0.0, 0.0]), torch.ones(8)
    result = attacks.run(attacks.DDN(steps=30), linear(), x, y.long(), Threat(region=L2(torch.inf)))
    beyond = result.distance / (3 * x[:, 0] / 5) - 1
    # Without it lengths are off by up to gamma, 0.05.
    assert float(beyond.min()) >= -1e-6
    assert float(beyond.max()) <= 0.01


def test_an_example_of_sigma_zero_needs_each_of_its_changes() -> None:
    generator = torch.Generator().manual_seed(1)
    net = nn.Linear(30, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.randn(2, 30, generator=generator))
    x = torch.rand(40, 30, generator=generator)
    model, y = TorchModel(net, domain=(0, 1)), net(x).argmax(1)
    threat = Threat(region=L0(torch.inf))
    found = attacks.run(attacks.SigmaZero(steps=60), model, x, y, threat).x_adv
    for i in range(30):
        changed = found[:, i] != x[:, i]
        less = found.clone()
        less[:, i] = x[:, i]
        assert bool((net(less).argmax(1) == y)[changed].all())


@pytest.mark.slow
def test_rounds_of_sigma_zero_find_fewer_changes_on_a_hardened_network(
    sound: Callable[..., Sound],
) -> None:
    found = sound("mnist", eps=0.2)
    threat = Threat(region=L0(torch.inf))
    x, y = (torch.from_numpy(part[:60]) for part in (found.unseen.x, found.unseen.y))
    rounds, single = (
        attacks.run(
            attacks.SigmaZero(steps=200, period=period), TorchModel(found.net), x, y, threat
        ).distance
        for period in (50, 200)
    )
    assert bool(rounds.isfinite().all())
    assert float(rounds.mean()) < float(single.mean())


def test_without_an_example_sigma_zero_begins_no_round() -> None:
    x, y = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), torch.ones(4).long()
    asked = []
    for period in (10, 40):
        net = nn.Linear(3, 2)
        with torch.no_grad():
            net.weight.copy_(torch.stack((-WEIGHT, WEIGHT)))
            net.bias.copy_(torch.tensor([-50.0, 50.0]))
        seen: list[Tensor] = []
        net.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0].detach()))
        attack, threat = attacks.SigmaZero(steps=40, period=period), Threat(region=L0(torch.inf))
        found = attacks.run(attack, TorchModel(net, domain=(0, 1)), x, y, threat)
        assert not bool(found.distance.isfinite().any())
        asked.append(torch.cat(seen))
    assert torch.equal(*asked)


class _Decoy(nn.Module):
    """At the origin the second class leads the fourth, and is ten times as far away."""

    def forward(self, x: Tensor) -> Tensor:
        zero = 0 * x[:, 0]
        return torch.stack((zero, 0.1 * x[:, 0] - 0.5, zero - 0.8, 2 * x[:, 1] - 1), 1)


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        (attacks.FMN(steps=60), "l2"),
        (attacks.FMN(steps=60), "l1"),
        (attacks.FMN(steps=60), "linf"),
        (attacks.ALMA(steps=60), "l2"),
    ],
    ids=str,
)
def test_the_class_that_leads_at_x_does_not_hide_a_nearer_one(
    attack: attacks.Attack, norm: str
) -> None:
    x, y = torch.zeros(1, 2), torch.tensor([0])
    threat = Threat(region=BALLS[norm](torch.inf))
    found = attacks.run(attack, TorchModel(_Decoy(), domain=(-10, 10)), x, y, threat)
    # The decoy is 5 away.
    assert 0.5 <= float(found.distance) <= 1


class _Many(nn.Module):
    """The second class leads at the origin and takes five features, the fourth takes one."""

    def forward(self, x: Tensor) -> Tensor:
        zero = 0 * x[:, 0]
        return torch.stack((zero, 0.11 * x[:, 1:].sum(1) - 0.5, zero - 0.8, 2 * x[:, 0] - 1), 1)


@pytest.mark.parametrize("attack", [attacks.SigmaZero(steps=40), attacks.PDPGD(steps=150)], ids=str)
def test_the_class_that_leads_at_x_does_not_hide_one_of_fewer_features(
    attack: attacks.Attack,
) -> None:
    x, y, threat = torch.zeros(1, 6), torch.tensor([0]), Threat(region=L0(torch.inf))
    model = TorchModel(_Many(), domain=(0, 1))
    assert float(attacks.run(attack, model, x, y, threat).distance) == 1


@pytest.mark.parametrize(("norm", "slack"), [("l2", 1.01), ("l1", 1.5)])
def test_alma_ends_at_the_nearest_point_of_the_boundary(norm: str, slack: float) -> None:
    net = nn.Linear(60, 2)
    with torch.no_grad():
        net.weight.copy_(torch.randn(2, 60, generator=torch.Generator().manual_seed(5)))
        net.bias.zero_()
    x = 0.4 + 0.2 * torch.rand(4, 60, generator=torch.Generator().manual_seed(0))
    scores, normal = net(x).detach(), (net.weight[1] - net.weight[0]).detach()
    dual = normal.norm() if norm == "l2" else normal.abs().max()
    exact = (scores[:, 1] - scores[:, 0]).abs() / dual
    threat = Threat(region=BALLS[norm](torch.inf))
    model = TorchModel(net, domain=(-9, 9))
    found = attacks.run(attacks.ALMA(steps=100), model, x, scores.argmax(1), threat)
    # As the descent leaves it, it is 1.26 and 3.8 times as far.
    assert bool((found.distance >= exact * (1 - 1e-6)).all())
    assert float((found.distance / exact).max()) <= slack


class _Plateau(nn.Module):
    """Flat on either side of a cliff, which is seen by nobody who follows gradients."""

    def forward(self, x: Tensor) -> Tensor:
        beyond = (x.sum(1) > 1).to(x.dtype) + 0 * x.sum(1)
        return torch.stack((0.5 + 0 * beyond, beyond, 0 * beyond), 1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_pdpgd_begins_again_from_the_other_side_where_it_finds_nothing(norm: str) -> None:
    x, y = torch.tensor([[0.1, 0.0, 0.2, 0.1]]), torch.tensor([0])
    threat = Threat(region=BALLS[norm](torch.inf))
    found = attacks.run(attacks.PDPGD(steps=20), TorchModel(_Plateau()), x, y, threat)
    assert found.status == (attacks.Status.FOOLED,)
    assert int(found.ledger.first_success) > 10


@pytest.mark.parametrize("name", ["margin", "dlr"])
@pytest.mark.parametrize("goal", [Untargeted(), Targeted(2)], ids=str)
def test_a_blend_keeps_the_value_and_weighs_rivals_as_a_softmax(name: str, goal: Goal) -> None:
    problem, _ = boxed("l2")
    problem = replace(problem, goal=goal)
    scores = torch.randn(8, 5, generator=torch.Generator().manual_seed(4)).requires_grad_()
    own = 0 if isinstance(goal, Untargeted) else 2
    plain = loss(name, problem, scores)
    top = scores.detach().sort(1, descending=True).values
    spread = top[:, 0] - top[:, 2]
    for share in (1.0, 0.3):
        mixed = loss(name, problem, scores, torch.full((8,), share))
        assert torch.equal(mixed, plain)
        if name == "margin":
            (slope,) = torch.autograd.grad(mixed.sum(), scores, retain_graph=True)
            rivals = scores.detach().clone()
            rivals[:, own] = -torch.inf
            expected = (rivals / (share * spread[:, None] / 4)).softmax(1)
            expected[:, own] = -1
            sign = 1 if isinstance(goal, Untargeted) else -1
            torch.testing.assert_close(slope, sign * expected)
    cold = loss(name, problem, scores, torch.zeros(8))
    slopes = [
        torch.autograd.grad(value.sum(), scores, retain_graph=True)[0] for value in (plain, cold)
    ]
    torch.testing.assert_close(*slopes)


def test_a_blend_of_scores_that_are_not_finite_is_the_plain_margin() -> None:
    problem, _ = boxed("l2", rows=3)
    scores = torch.tensor([[1.0, -torch.inf, 0.0], [-torch.inf, 1.0, 0.0], [1.0, 2.0, -torch.inf]])
    mixed = loss("margin", problem, scores, torch.ones(3))
    assert torch.equal(mixed, loss("margin", problem, scores))
    leaf = scores[::2].clone().requires_grad_()
    (slope,) = torch.autograd.grad(
        loss("margin", problem.take(torch.tensor([0, 2])), leaf, torch.ones(2)).sum(), leaf
    )
    assert bool(slope.isfinite().all())


def test_apgd_in_l1_looks_at_its_steps_phase_by_phase() -> None:
    """Each radius is a run of its own: Croce and Hein 2021, section 3.3 and algorithm 1."""
    begun, interval = _phase(torch.tensor([0, 29, 30, 59, 60, 99]), 100)
    assert begun.tolist() == [0, 0, 30, 30, 60, 60]
    assert interval.tolist() == [1] * 6
    begun, interval = _phase(torch.tensor([299, 599, 999]), 1000)
    assert begun.tolist() == [0, 300, 600]
    assert interval.tolist() == [12, 12, 16]


def test_apgd_in_l1_goes_from_the_widest_ball_to_the_threats(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x[:8]), torch.from_numpy(digits.data.y[:8])
    lengths: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            if points.requires_grad and len(points) == len(x):
                lengths.append((points - x).detach().abs().flatten(1).sum(1))
            scores: Tensor = digits.net(points)
            return scores

    # Nobody is fooled so soon that others' lanes are taken off.
    threat = Threat(region=L1(0.05))
    attacks.run(attacks.APGD(steps=20), TorchModel(Watched()), x, y, threat)
    longest = torch.stack(lengths).amax(1)
    assert float(longest[0]) == pytest.approx(0.15, rel=1e-3)
    assert all(float(one) <= 0.1001 for one in longest[6:])
    assert all(float(one) <= 0.05001 for one in longest[12:])
    assert float(longest[6:12].amax()) > 0.06
