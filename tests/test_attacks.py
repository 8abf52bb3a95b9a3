"""The engine against closed forms, and the properties it promises."""

import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from withstand import WithstandError, attacks
from withstand.attacks._apgd import _windows
from withstand.attacks._ball import _inward, project
from withstand.attacks._noise import GOLDEN, _mix, mix
from withstand.models import FunctionModel, Randomized, TorchModel
from withstand.testing import check_attack
from withstand.threat import L0, L1, L2, Box, Budget, Frozen, Linf, Region, Threat

WEIGHT = torch.tensor([3.0, -4.0, 0.0])


def linear() -> TorchModel:
    net = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.stack((torch.zeros(3), WEIGHT)))
    return TorchModel(net, domain=(-10, 10))


def network() -> tuple[TorchModel, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 5))
    x = torch.rand(60, 1, 8, 8)
    return TorchModel(net), x, net(x).argmax(1).detach()


@pytest.mark.parametrize(("ball", "radius"), [(Linf, 2 / 7), (L2, 2 / 5)], ids=["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [attacks.FGSM(), attacks.PGD(steps=10), attacks.APGD(steps=20)],
    ids=["fgsm", "pgd", "apgd"],
)
def test_linear_model_falls_exactly_beyond_its_margin(
    attack: attacks.Attack, ball: type, radius: float
) -> None:
    x = torch.tensor([[2 / 3, 0.0, 0.0]])  # the margin is 2
    y = torch.tensor([1])
    for factor, falls in ((0.99, False), (1.01, True)):
        threat = Threat(region=ball(radius * factor))
        result = attacks.run(attack, linear(), x, y, threat)
        assert bool(result.success) is falls
        assert bool(threat.region.contains(x, result.x_adv).all())


def test_frozen_features_stay() -> None:
    x, y = torch.tensor([[2 / 3, 0.0, 0.0]]), torch.tensor([1])
    region = Linf(0.6) & Frozen((0,))
    result = attacks.run(attacks.PGD(steps=5), linear(), x, y, Threat(region=region))
    assert bool(result.success)
    assert result.x_adv[0, 0] == x[0, 0]


@pytest.mark.parametrize("region", [Linf(0.12), L2(0.5)], ids=["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [attacks.PGD(steps=6, restarts=2), attacks.APGD(steps=20)],
    ids=["pgd", "apgd"],
)
def test_examples_and_ledger_do_not_depend_on_batches_or_order(
    region: Region, attack: attacks.Attack
) -> None:
    model, x, y = network()
    x = torch.cat((x[:40], x[:3]))
    y = torch.cat((y[:40], y[:3]))
    threat = Threat(region=region)
    whole = attacks.run(attack, model, x, y, threat, seed=3, batch_size=43)
    assert 4 < int(whole.success.sum()) < 39
    assert bool(region.contains(x, whole.x_adv).all())
    order = torch.randperm(40)
    for batch_size in (5, 17, 36):
        split = attacks.run(attack, model, x, y, threat, seed=3, batch_size=batch_size)
        assert torch.equal(split.x_adv, whole.x_adv)
        assert torch.equal(split.ledger.forwards, whole.ledger.forwards)
    mixed = attacks.run(attack, model, x[order], y[order], threat, seed=3, batch_size=20)
    assert torch.equal(mixed.x_adv, whole.x_adv[order])
    other = attacks.run(attack, model, x, y, threat, seed=4, batch_size=43)
    assert not torch.equal(other.x_adv, whole.x_adv)


def test_compaction_changes_no_example_and_no_ledger() -> None:
    model, x, y = network()
    threat, attack = Threat(region=Linf(0.12)), attacks.PGD(steps=6)
    kept = attacks.run(attack, model, x, y, threat, compact=False)
    left = attacks.run(attack, model, x, y, threat)
    assert torch.equal(kept.x_adv, left.x_adv)
    assert torch.equal(kept.ledger.forwards, left.ledger.forwards)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_query_limit_is_never_exceeded(limit: int) -> None:
    model, x, y = network()
    threat = Threat(region=Linf(0.001), queries=limit)
    result = attacks.run(attacks.PGD(steps=50), model, x, y, threat)
    assert result.ledger.forwards.tolist() == [limit] * 60
    assert set(result.status) == {attacks.Status.BUDGET}


def test_a_sample_that_is_wrong_already_costs_one_query() -> None:
    model, x, y = network()
    result = attacks.run(attacks.PGD(), model, x, (y + 1) % 5, Threat(region=Linf(0.1)))
    assert set(result.status) == {attacks.Status.ALREADY_WRONG}
    assert result.ledger.forwards.tolist() == [1] * 60
    assert not result.distance.any()
    assert torch.equal(result.x_adv, x)


def test_scaled_logits_blind_cross_entropy_but_not_the_scale_free_losses() -> None:
    model, x, y = network()
    loud = TorchModel(nn.Sequential(model.net, _Scale(1e5)))
    rates = {
        name: float(
            attacks.run(attacks.PGD(steps=20, loss=name), loud, x, y, Threat(region=Linf(0.12)))
            .success.float()
            .mean()
        )
        for name in ("ce", "dlr", "pma")
    }
    assert rates["pma"] > rates["ce"]
    assert rates["dlr"] > rates["ce"]


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_noise_is_uniform_and_each_rows_own() -> None:
    from withstand.attacks._noise import normal, uniform

    x, y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)
    keys = attacks.sample_keys(x, y)
    assert len(set(keys.tolist())) == 3
    one = torch.ones(3)
    problem = attacks.Problem(
        x=x, y=y, key=keys, lane=y, target=y, eps=one, lower=x, upper=x, norm="linf",
        goal=Threat(region=Linf(1)).goal, seed=0,
    )  # fmt: skip
    drawn = uniform(problem, 1, 0, 20000)
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert (
        torch.corrcoef(torch.cat((drawn, uniform(problem, 1, 1, 20000))))
        .fill_diagonal_(0)
        .abs()
        .max()
        < 0.03
    )
    assert abs(float(drawn.mean()) - 0.5) < 0.01
    gaussian = normal(problem, 2, 0, 20001)
    assert abs(float(gaussian.std()) - 1) < 0.02
    assert abs(float(gaussian.pow(4).mean()) - 3) < 0.2


def _three(norm: str) -> attacks.Problem:
    x, y = torch.rand(3, 4), torch.arange(3)
    return attacks.Problem(
        x=x, y=y, key=attacks.sample_keys(x, y), lane=y * 0, target=y, eps=torch.ones(3), lower=x,
        upper=x, norm=norm, goal=Threat(region=Linf(1)).goal, seed=0,
    )  # fmt: skip


def test_noise_of_some_elements_is_theirs_whoever_else_is_asked() -> None:
    from withstand.attacks._noise import uniform_of

    problem = _three("l0")
    y = problem.y
    row, element = (one.flatten() for one in torch.meshgrid(y, torch.arange(5000), indexing="ij"))
    drawn = uniform_of(problem, 1, 0 * y, row, element)
    each = torch.cat((drawn, uniform_of(problem, 1, 0 * y + 1, row, element))).reshape(6, -1)
    assert 0 < float(each.min()) < 0.01
    assert 0.99 < float(each.max()) < 1
    assert ((each.mean(1) - 0.5).abs() < 0.02).all()
    assert torch.corrcoef(each).fill_diagonal_(0).abs().max() < 0.05
    few = torch.tensor([7, 14_999, 5_003])
    assert torch.equal(uniform_of(problem, 1, 0 * y, row[few], element[few]), drawn[few])


def test_directions_favour_no_feature_and_are_each_rows_own() -> None:
    from withstand.attacks._noise import spread

    problem = _three("l2")
    steps = torch.arange(4000).expand(3, 4000)
    drawn = spread(problem, 1, steps, 7)
    assert drawn.abs().max() < 1
    each = drawn.transpose(0, 1).reshape(4000, 21)
    assert each.mean(0).abs().max() < 0.05
    assert (3 * each.var(0) - 1).abs().max() < 0.08
    assert torch.corrcoef(each.T).fill_diagonal_(0).abs().max() < 0.08
    assert torch.corrcoef(each[:300]).fill_diagonal_(0).abs().max() < 0.95
    alone = problem.take(torch.tensor([1]))
    assert torch.equal(spread(alone, 1, steps[:1, 5:9], 7)[0], drawn[1, 5:9])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_is_not_finite_moves_nothing_away(norm: str) -> None:
    from withstand.attacks._pgd import steepest

    gradient = torch.tensor([[3.0, -4.0], [torch.nan, 1.0], [torch.inf, -1.0]])
    problem = attacks.Problem(
        x=gradient, y=gradient, key=gradient, lane=gradient, target=gradient, eps=gradient,
        lower=gradient, upper=gradient, norm=norm, goal=Threat(region=Linf(1)).goal, seed=0,
    )  # fmt: skip
    direction = steepest(problem, gradient)
    assert bool(direction.isfinite().all())
    assert torch.equal(
        direction[0], torch.tensor([0.6, -0.8]) if norm == "l2" else gradient[0].sign()
    )
    assert float(gradient[0, 1]) == -4


def test_impossible_requests_are_one_line() -> None:
    model, x, y = network()
    threat = Threat(region=Linf(0.1))
    blind = FunctionModel(lambda a: a.reshape(len(a), -1)[:, :5])
    for call, words in (
        (lambda: attacks.run(attacks.PGD(), blind, x, y, threat), "needs gradients"),
        (lambda: attacks.run(attacks.PGD(), model, x[:0], y[:0], threat), "as many labels"),
        (lambda: attacks.run(attacks.PGD(), model, 5 * x, y, threat), "outside the model's domain"),
        (lambda: attacks.run(attacks.PGD(), model, x, y, threat.unbounded()), "finite"),
        (lambda: attacks.run(attacks.PGD(loss="mse"), model, x, y, threat), "ce, dlr"),
    ):
        with pytest.raises(WithstandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_apgd_checkpoints_are_the_papers() -> None:
    windows = _windows(100)
    assert list(windows) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(windows.values()) == [22, 19, 16, 13, 10, 7, 6, 6]


@pytest.mark.parametrize("steps", [1, 5, 10, 20])
def test_apgd_of_few_steps_has_each_checkpoint_once_and_counts_all_steps_between(
    steps: int,
) -> None:
    at, between = zip(*_windows(steps).items(), strict=True)
    assert all(window > 0 for window in between)
    assert [0, *at] == list(accumulate(between, initial=0))


def test_apgd_fools_at_least_what_pgd_fools_at_equal_steps() -> None:
    model, x, y = network()
    threat = Threat(region=Linf(0.12))
    fooled = [
        int(attacks.run(attack, model, x, y, threat).success.sum())
        for attack in (attacks.APGD(steps=40), attacks.PGD(steps=40))
    ]
    assert fooled[0] >= fooled[1]


@pytest.mark.parametrize("name", sorted(attacks.registry()))
def test_every_attack_of_the_registry_conforms(name: str) -> None:
    short: dict[str, dict[str, Any]] = {
        "HopSkipJump": {"queries": 130},
        "Square": {"queries": 40},
        **{name: {"queries": 60} for name in ("NES", "SPSA", "SimBA", "SparseRS")},
        "APGD": {"steps": 30},
        "APGDT": {"steps": 20},
        "OrthogonalPGD": {"steps": 25},
        "RandomNoise": {"draws": 20},
        "TransferPGD": {"steps": 10},
        "BoundaryAttack": {"queries": 80},
        "CGBA": {"queries": 80},
        "RayS": {"queries": 80},
        "SignOPT": {"queries": 80},
        "SurFree": {"queries": 80},
        "CAPGD": {"steps": 12, "restarts": 2},
        "TableSearch": {"generations": 8, "children": 6},
        "TableWalk": {"rounds": 10, "block": 8},
        "ALMA": {"steps": 25},
        "CarliniWagner": {"steps": 20, "searches": 3},
        "DDN": {"steps": 40},
        "FAB": {"steps": 20},
        "FMN": {"steps": 40},
        "PDPGD": {"steps": 30},
        "SigmaZero": {"steps": 40},
        "PGD": {"steps": 10, "restarts": 2},
        "Spatial": {"angles": 5, "shifts": 3},
        "SuperDeepFool": {"steps": 20},
        "WeightedPGD": {"steps": 20},
    }
    check_attack(attacks.registry()[name](**short.get(name, {})))


@pytest.mark.parametrize(
    ("ball", "distance"),
    [(Linf, 2 / 7), (L2, 2 / 5), (L1, 2 / 4), (L0, 1)],
    ids=["linf", "l2", "l1", "l0"],
)
def test_fmn_finds_the_closed_form_distance(ball: type, distance: float) -> None:
    x, y = torch.tensor([[2 / 3, 0.0, 0.0]]), torch.tensor([1])
    result = attacks.run(attacks.FMN(steps=200), linear(), x, y, Threat(region=ball(torch.inf)))
    found = float(result.distance)
    assert distance - 1e-6 <= found <= 1.01 * distance
    assert result.curve().robust_accuracy(0.99 * distance).value == 1
    assert result.curve().robust_accuracy(found).value == 0


@pytest.mark.parametrize(
    ("ball", "distance"), [(Linf, 2 / 7), (L2, 2 / 5), (L1, 2 / 4)], ids=["linf", "l2", "l1"]
)
def test_fmn_reaches_a_boundary_that_its_steps_do_not(ball: type, distance: float) -> None:
    x, y = torch.tensor([[2 / 3, 0.0, 0.0]]), torch.tensor([1])
    attack = attacks.FMN(steps=5, alpha=0.01)
    result = attacks.run(attack, linear(), x, y, Threat(region=ball(torch.inf)))
    assert distance - 1e-6 <= float(result.distance) <= 1.5 * distance


def test_the_nearest_of_many_points_counts_and_one_outside_does_not() -> None:
    from withstand.attacks._harvest import Harvest

    x, y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
    problem = attacks.Problem(
        x=x, y=y, key=y, lane=y, target=y, eps=torch.ones(3), lower=x - 1, upper=x + 1, norm="l2",
        goal=Threat(region=L2(1)).goal, seed=0,
    )  # fmt: skip
    where = torch.tensor([2, 0, 2, 2, 0])
    points = torch.tensor([[0.9, 0.0], [0.5, 0.5], [0.0, 1.1], [0.6, 0.6], [0.2, 0.0]])
    number = torch.tensor([7, 3, 8, 9, 4])
    for bounded, kept, first in ((False, [4, 3], [4, 9]), (True, [1, 0], [3, 7])):
        region = L2(torch.inf) & Box(-1, 1)
        harvest = Harvest(attacks.FMN(), problem, region, "l2", bounded=bounded)
        harvest.add(where, points, number, alone=False)
        assert harvest.found.tolist() == [True, False, True]
        assert torch.equal(harvest.x_adv[[0, 2]], points[kept])
        assert harvest.first.tolist() == [first[0], -1, first[1]]
        # (0, -1.05) is nearer, and the earlier one, but outside the box.
        beside = torch.tensor([[0.0, -1.05], [0.9, 0.9]])
        harvest.add(torch.tensor([1, 1]), beside, torch.tensor([1, 2]), alone=False)
        assert torch.equal(harvest.x_adv[1], beside[1])
        before = harvest.x_adv.clone()
        harvest.add(torch.tensor([0]), torch.tensor([[torch.nan, 0.0]]), number[:1], alone=True)
        assert torch.equal(harvest.x_adv, before)


def test_hopskipjump_comes_near_the_closed_form_distance() -> None:
    x, y = torch.tensor([[2 / 3, 0.0, 0.0]]), torch.tensor([1])
    for ball, distance in ((L2, 2 / 5), (Linf, 2 / 7)):
        attack, threat = attacks.HopSkipJump(queries=2000), Threat(region=ball(torch.inf))
        result = attacks.run(attack, linear(), x, y, threat)
        assert distance <= float(result.distance) <= 1.1 * distance
        assert int(result.ledger.forwards) == 2001
        assert int(result.ledger.backwards) == 0


def test_hopskipjump_says_when_there_is_nothing_to_start_from() -> None:
    x, y = torch.rand(3, 4), torch.zeros(3, dtype=torch.long)
    stubborn = FunctionModel(lambda a: (a[:, :1] > 2).astype("float32") * [[-1, 1]] + [[0, -0.5]])
    result = attacks.run(attacks.HopSkipJump(), stubborn, x, y, Threat(region=L2(torch.inf)))
    assert set(result.status) == {attacks.Status.NO_START}
    assert torch.equal(result.x_adv, x)
    assert int(result.ledger.forwards.max()) == 101


def test_malt_ranks_targets_by_distance_and_not_by_score() -> None:
    net = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        # Class 1 has the higher score at distance 1, but class 2 is at distance 10 / 14.1.
        net.weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.0], [-9.0, 10.0]]))
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    seen: list[Tensor] = []

    class Spy(attacks.APGDT):
        def plan(self, problem: attacks.Problem, ask: attacks.Ask) -> Tensor | None:
            planned = super().plan(problem, ask)
            assert planned is not None
            seen.append(planned)
            return planned

    attacks.run(
        Spy(steps=2, targets=2), TorchModel(net, domain=(-5, 5)), x, y, Threat(region=Linf(0.01))
    )
    assert seen[0].tolist() == [[2, 1]]


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_projection_is_the_nearest_point_of_ball_and_box(norm: str) -> None:
    from scipy.optimize import minimize

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 5, generator=generator)
    points = x + 2 * torch.randn(6, 5, generator=generator)
    radius = torch.full((6,), 0.6)
    zero = torch.zeros(6, dtype=torch.long)
    problem = attacks.Problem(
        x=x, y=zero, key=zero, lane=zero, target=zero, eps=radius, lower=torch.zeros_like(x),
        upper=torch.ones_like(x), norm=norm, goal=Threat(region=Linf(1)).goal, seed=0,
    )  # fmt: skip
    projected = project(problem, points)
    power = {"l1": 1, "l2": 2}[norm]
    assert bool(((projected - x).norm(p=power, dim=1) <= radius).all())
    assert bool(((projected >= 0) & (projected <= 1)).all())

    def length(v: Any) -> Any:
        return v.sum() if norm == "l1" else np.sqrt(np.square(v[:5] - v[5:]).sum())

    for i in range(6):
        start, goal = x[i].double().numpy(), points[i].double().numpy()

        def gap(v: Any, start: Any = start, goal: Any = goal) -> Any:
            return np.square(start + v[:5] - v[5:] - goal).sum()

        # The change is split into its positive and negative part, which makes L1 smooth.
        best = minimize(
            gap,
            [0.01] * 10,
            bounds=[*((0, 1 - a) for a in start), *((0, a) for a in start)],
            constraints={"type": "ineq", "fun": lambda v: 0.6 - length(v)},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        ours = float(((projected[i] - points[i]).double() ** 2).sum())
        assert ours <= best.fun * 1.001 + 1e-6


def test_restarts_and_targets_cost_only_those_who_withstand() -> None:
    model, x, y = network()
    threat = Threat(region=Linf(0.12))
    once = attacks.run(attacks.APGD(steps=20), model, x, y, threat)
    thrice = attacks.run(attacks.APGD(steps=20, restarts=3), model, x, y, threat)
    assert bool((thrice.success >= once.success).all())
    assert torch.equal(thrice.x_adv[once.success], once.x_adv[once.success])
    assert torch.equal(thrice.ledger.forwards[once.success], once.ledger.forwards[once.success])
    assert int(thrice.ledger.forwards.max()) == 1 + 3 * 21


@pytest.mark.parametrize("name", ["Square", "HopSkipJump"])
def test_a_model_that_fails_in_the_middle_costs_only_the_step_that_failed(
    name: str, tmp_path: Path
) -> None:
    model, x, y = network()
    x, y = x[:24], y[:24]
    asked, left = [0], [10**9]

    def function(a: Any) -> Any:
        if asked[0] >= left[0]:
            raise ConnectionError("reset by peer")
        asked[0] += 1
        rows = torch.from_numpy(np.resize(a, (max(len(a), 4), *a.shape[1:])))
        return model.scores(rows)[: len(a)].numpy()

    black = FunctionModel(function)
    if name == "HopSkipJump":
        black = FunctionModel(lambda a: function(a).argmax(1), returns="labels")
    attack = attacks.registry()[name](queries=60)
    threat = Threat(region=L2(0.6), access=attack.needs)
    whole = attacks.run(attack, black, x, y, threat, batch_size=16)
    enough = asked[0]
    for fails_at in (0, 1, 7, 40):
        asked[0], left[0] = 0, fails_at
        with pytest.raises(WithstandError, match="reset by peer"):
            attacks.run(attack, black, x, y, threat, batch_size=16, checkpoint=tmp_path / "c")
        left[0] = 10**9
        resumed = attacks.run(attack, black, x, y, threat, batch_size=16, checkpoint=tmp_path / "c")
        # A step of HopSkipJump asks up to 64 points of each row, in parts of 16.
        assert 0 <= asked[0] - enough <= (64 if name == "HopSkipJump" else 0), fails_at
        assert torch.equal(resumed.x_adv, whole.x_adv), fails_at
        assert torch.equal(resumed.ledger.forwards, whole.ledger.forwards), fails_at
        assert resumed.status == whole.status, fails_at


def test_the_hash_is_the_same_in_numpys_integers_and_in_torchs() -> None:
    bits = torch.cat((torch.arange(-9, 9), torch.tensor([2**63 - 1, -(2**63)]))) * GOLDEN
    # The finaliser of SplitMix64 with Python's integers.
    wanted = []
    for value in bits.tolist():
        value %= 2**64
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        wanted.append(value ^ value >> 31)
    for mixed in (mix(bits.clone()), _mix(bits.clone())):
        assert [value % 2**64 for value in mixed.tolist()] == wanted


def test_bounds_are_rounded_to_the_next_number_inside() -> None:
    corner = [0.0, -0.0, np.inf, -np.inf, 1e300, -1e300, 1e-50, -1e-50, 0.1, -0.1, 0.5, -1e-45]
    exact = np.array([*corner, *np.random.default_rng(0).normal(size=500)])
    for toward in (np.inf, -np.inf):
        near = torch.from_numpy(exact).float()
        outside = near.double() < torch.from_numpy(exact)
        if toward < 0:
            outside = near.double() > torch.from_numpy(exact)
        wanted = torch.where(outside, near.nextafter(torch.tensor(toward)), near)
        found = _inward(exact, toward)
        assert torch.equal(found.view(torch.int32), wanted.view(torch.int32))
        assert outside.sum() > 200


class Shaken(nn.Module):
    """Two classes by the sum of the features, under noise of its own for each row."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1) + 0.5 * torch.randn(len(x))
        return torch.stack((total, -total), 1)


@pytest.mark.parametrize(
    "attack", [attacks.PGD(steps=20), attacks.APGD(steps=20), attacks.DDN(steps=30)]
)
def test_whoever_is_fooled_by_an_attack_s_own_draws_alone_is_not_let_go(
    attack: attacks.Attack,
) -> None:
    """At the end of the region the sum is 5.5 of the noise's deviations beyond the boundary."""
    model = Randomized(TorchModel(Shaken(), domain=(-9, 9)), draws=2)
    x = torch.full((64, 4), 0.5)
    y = torch.zeros(64, dtype=torch.long)
    minimum = attack.minimum_norm
    threat = Threat(region=L2(np.inf) if minimum else Linf(1.2))
    found = attacks.run(attack, model, x, y, threat)
    assert attacks.Status.BUDGET not in found.status
    assert found.status.count(attacks.Status.FOOLED) >= 60
    assert bool((model.scores(found.x_adv).argmax(1) == 1).float().mean() > 0.5)
    capped = attacks.run(attack, model, x, y, threat, budget=Budget(forwards=5))
    assert int(capped.ledger.forwards.max()) <= 5
    assert attacks.Status.WITHSTOOD not in capped.status


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: attacks.PGD(steps=0), "steps of PGD is 0; give a whole number of at least 1"),
        (lambda: attacks.DDN(steps=-3), "steps of DDN is -3"),
        (lambda: attacks.DDN(steps=float("nan")), "steps of DDN is nan"),  # type: ignore[arg-type]
        (lambda: attacks.PGD(steps=2.5), "steps of PGD is 2.5"),  # type: ignore[arg-type]
        (lambda: attacks.CGBA(queries=0), "queries of CGBA is 0"),
        (lambda: attacks.APGD(restarts=0), "restarts of APGD is 0"),
        (lambda: attacks.PGD(step_size=-1.0), "step_size of PGD is -1; give a finite number"),
        (lambda: attacks.SparseRS(alpha=float("inf")), "alpha of SparseRS is inf"),
        (lambda: attacks.TransferPGD(steps=0), "steps of TransferPGD is 0"),
        (
            lambda: attacks.FAB(targets=-1),
            "targets of FAB is -1; give a whole number of at",
        ),
    ],
)
def test_settings_that_make_no_attack_are_refused(make: Any, words: str) -> None:
    with pytest.raises(WithstandError, match=re.escape(words)):
        make()
    assert attacks.PGD(steps=np.int64(3)).steps == 3
