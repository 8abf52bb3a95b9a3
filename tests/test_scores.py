"""Attacks on scores: the conformance suite, closed forms, odd inputs, masks and models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from withstand import attacks
from withstand.attacks import (
    NES,
    SPSA,
    Attack,
    RandomNoise,
    Result,
    SimBA,
    SparseRS,
    Square,
    Status,
)
from withstand.models import FunctionModel, TorchModel
from withstand.testing import check_attack
from withstand.threat import L0, L1, L2, Linf, Mask, Region, Targeted, Threat

BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
ATTACKS: tuple[Attack, ...] = (
    *(SparseRS(), Square(), NES(), SPSA()),
    *(SimBA(basis="pixel"), SimBA(basis="dct")),
)


def name(value: object) -> str:
    basis = getattr(value, "basis", "")
    return value if isinstance(value, str) else type(value).__name__ + basis


pairs = [(attack, norm) for attack in ATTACKS for norm in attack.norms]
each_norm = pytest.mark.parametrize(("attack", "norm"), pairs, ids=name)


def attacked(
    attack: Attack, model: Any, x: Tensor, y: Tensor, region: Region, queries: int, **threat: Any
) -> Result:
    attack = replace(attack, queries=queries)
    return attacks.run(attack, model, x, y, Threat(region=region, access="scores", **threat))


def linear(features: int, classes: int = 2, seed: int = 5) -> nn.Linear:
    net = nn.Linear(features, classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        net.weight.copy_(torch.randn(classes, features, generator=generator))
        net.bias.zero_()
    return net


def box(features: int, n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, features, generator=torch.Generator().manual_seed(seed))


def fooled(result: Result) -> Tensor:
    return torch.tensor([status == Status.FOOLED for status in result.status])


@pytest.mark.slow
def test_the_basis_that_is_not_the_default_conforms() -> None:
    check_attack(SimBA(basis="pixel", queries=120))


@each_norm
def test_it_finds_what_is_just_in_reach_of_a_linear_model_and_no_more(
    attack: Attack, norm: str
) -> None:
    net, x = linear(30), 0.4 + 0.2 * box(30, 8)
    normal = (net.weight[0] - net.weight[1]).detach()
    size = normal.abs()
    # The drop of the score that a ball allows, or 4 features at the box's faces.
    reach = {"linf": size.sum(), "l2": normal.norm(), "l1": size.max()}.get(norm)
    if reach is None:
        corners = torch.where(normal > 0, (x + 9) * normal, (x - 9) * normal)
        reach, radius = corners.topk(4, dim=1).values.sum(1), 4.0
    else:
        radius = 0.5
        reach = radius * reach.expand(8)
    margin = x @ normal
    near = {"linf": 0.9, "l2": 0.8, "l1": 0.9, "l0": 0.99}[norm]
    for share, expected, queries in ((1.001, False, 250), (near, True, 1500)):
        # Each sample becomes its own model by a last feature that is the bias, and frozen.
        biased = nn.Linear(31, 2, bias=False)
        with torch.no_grad():
            biased.weight[:, :30] = net.weight
            biased.weight[:, 30] = torch.tensor([1.0, 0.0])
        rows = torch.cat((x, (share * reach - margin)[:, None]), 1)
        free = np.arange(31) < 30
        low = np.where(free, -9.0, -999.0)
        model = TorchModel(biased, domain=(low, -low))
        region = BALLS[norm](radius) & Mask(free)
        y = torch.zeros(8, dtype=torch.long)
        found = fooled(attacked(attack, model, rows, y, region, queries))
        assert bool((found == expected).all()), (share, found)


@each_norm
@pytest.mark.parametrize("shape", [(1,), (5,), (1, 5, 9), (3, 4, 6), (7, 3)], ids=str)
def test_it_knows_rows_and_pictures_of_any_shape(
    attack: Attack, norm: str, shape: tuple[int, ...]
) -> None:
    features = int(np.prod(shape))
    net = nn.Sequential(nn.Flatten(), linear(features))
    with torch.no_grad():
        net[1].bias.copy_(-0.5 * net[1].weight.sum(1))
    x = 0.45 + 0.1 * box(features, 6).reshape(6, *shape)
    y = net(x).argmax(1)
    radius = {"linf": 0.4, "l2": 0.4 * features**0.5, "l1": 0.4 * features, "l0": features}[norm]
    result = attacked(attack, TorchModel(net), x, y, BALLS[norm](radius), 200)
    assert set(result.status) == {Status.FOOLED}
    assert bool((net(result.x_adv).argmax(1) != y).all())


@each_norm
def test_it_keeps_to_bounds_of_each_feature(attack: Attack, norm: str) -> None:
    lower, upper = torch.tensor([-1.0, 0, -3, 10, 0, 0]), torch.tensor([1.0, 4, -2, 11, 1, 0.5])
    net = linear(6)
    with torch.no_grad():
        net.weight /= upper - lower
        net.bias.copy_(-(net.weight @ (lower + upper)) / 2)
    x = lower + (upper - lower) * box(6, 20)
    y = net(x).argmax(1)
    model = TorchModel(net, domain=(lower.numpy(), upper.numpy()))
    radius = {"linf": 0.5, "l2": 1.0, "l1": 2.0, "l0": 3}[norm]
    result = attacked(attack, model, x, y, BALLS[norm](radius), 150)
    assert Status.FOOLED in result.status
    assert bool(((result.x_adv >= lower) & (result.x_adv <= upper)).all())


@each_norm
@pytest.mark.parametrize("classes", [1, 2, 100])
def test_it_attacks_a_function_of_any_number_of_scores(
    attack: Attack, norm: str, classes: int
) -> None:
    net = linear(16, classes).double()

    def scores(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            flat = torch.from_numpy(rows).double().flatten(1)
            found = (flat[:, None] * net.weight).sum(2).numpy()
        return np.concatenate((-found, found), 1) if classes == 1 else found

    model = FunctionModel(scores, domain=(-1.0, 1.0))
    x = 2 * box(16, 10).reshape(10, 1, 4, 4) - 1
    y = torch.from_numpy(scores(x.numpy()).argmax(1))
    radius = {"linf": 0.3, "l2": 1.2, "l1": 3.0, "l0": 4}[norm]
    result = attacked(attack, model, x, y, BALLS[norm](radius), 150)
    assert int(fooled(result).sum()) >= 5
    assert bool((result.ledger.forwards <= 151).all())


@each_norm
def test_it_reaches_a_target(attack: Attack, norm: str) -> None:
    net = nn.Sequential(nn.Flatten(), linear(16, 3))
    x = 2 * box(16, 12).reshape(12, 1, 4, 4) - 1
    y = net(x).argmax(1)
    x, y = x[y != 1], y[y != 1]
    radius = {"linf": 0.8, "l2": 3.0, "l1": 10.0, "l0": 10}[norm]
    model = TorchModel(net, domain=(-1.0, 1.0))
    result = attacked(attack, model, x, y, BALLS[norm](radius), 300, goal=Targeted(1))
    found = fooled(result)
    assert bool(found.any())
    assert bool((net(result.x_adv).argmax(1) == 1)[found].all())


@pytest.fixture(scope="module")
def trained() -> tuple[TorchModel, Tensor, Tensor]:
    """Noise with a bright edge on one of four sides, and a small network that says on which."""
    generator = torch.Generator().manual_seed(2)
    y = torch.arange(400) % 4
    x = 0.25 + 0.25 * torch.rand(400, 1, 8, 8, generator=generator)
    for label, part in enumerate((x[..., :2, :], x[..., -2:, :], x[..., :2], x[..., -2:])):
        part[y == label] += 0.25
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    right = net(x).argmax(1) == y
    assert float(right.float().mean()) > 0.95
    return TorchModel(net.eval()), x[right][:40], y[right][:40]


STRENGTH = {"linf": 0.1, "l2": 0.8, "l1": 3.5, "l0": 4}


@pytest.fixture(scope="module")
def by_noise(trained: tuple[TorchModel, Tensor, Tensor]) -> Callable[[str], int]:
    """How many 400 draws of random noise fool, by norm."""

    @cache
    def found(norm: str) -> int:
        threat = Threat(region=BALLS[norm](STRENGTH[norm]), access="scores")
        return int(fooled(attacks.run(RandomNoise(draws=400), *trained, threat)).sum())

    return found


@each_norm
def test_it_beats_random_noise_and_gains_by_queries(
    attack: Attack,
    norm: str,
    trained: tuple[TorchModel, Tensor, Tensor],
    by_noise: Callable[[str], int],
) -> None:
    model, x, y = trained
    region = BALLS[norm](STRENGTH[norm])
    few, many = (fooled(attacked(attack, model, x, y, region, n)) for n in (40, 400))
    assert int(few.sum()) < int(many.sum())
    assert by_noise(norm) + 8 <= int(many.sum())


@each_norm
def test_more_queries_lose_nobody(
    attack: Attack, norm: str, trained: tuple[TorchModel, Tensor, Tensor]
) -> None:
    model, x, y = trained
    region = BALLS[norm](STRENGTH[norm])
    run = partial(attacks.run, replace(attack, queries=400), model, x, y)
    few, many = (run(Threat(region=region, access="scores", queries=limit)) for limit in (100, 200))
    assert bool((~fooled(few) | fooled(many)).all())
    assert torch.equal(few.x_adv[fooled(few)], many.x_adv[fooled(few)])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_square_asks_nothing_that_a_patch_leaves_as_it_was(norm: str) -> None:
    asked: list[Tensor] = []

    def scores(rows: np.ndarray) -> np.ndarray:
        asked.append(torch.from_numpy(rows))
        # Each query is the best so far, so that each one moves on from the one before.
        return np.tile([99.0 - len(asked), 0.0], (len(rows), 1))

    free = np.zeros((4, 1, 20, 20), bool)
    for sample, (top, left) in enumerate(((0, 0), (3, 15), (16, 16), (9, 4))):
        free[sample, :, top : top + 4, left : left + 3] = True
    x = 0.3 + 0.4 * box(400, 4).reshape(4, 1, 20, 20)
    region = BALLS[norm](0.2) & Mask(free)
    y = torch.zeros(4, dtype=torch.long)
    attacked(Square(), FunctionModel(scores), x, y, region, 80)
    points = torch.stack(asked[1:]).flatten(2)
    assert len(points) == 80
    fresh = (points[1:] != points[:-1]).any(2).float().mean(0)
    assert bool((fresh > 0.3).all()), fresh


@each_norm
def test_a_patch_is_a_mask(
    attack: Attack, norm: str, trained: tuple[TorchModel, Tensor, Tensor]
) -> None:
    model, x, y = trained
    free = np.zeros((1, 8, 8), bool)
    free[:, 2:7, 1:7] = True
    radius = {"linf": 9.0, "l2": 9.0, "l1": 30.0, "l0": 30}[norm]
    region = BALLS[norm](radius) & Mask(free)
    result = attacked(attack, model, x, y, region, 300)
    moved = (result.x_adv != x).any(0)
    assert not bool((moved & ~torch.from_numpy(free)).any())
    assert int(fooled(result).sum()) >= 20


def test_sparse_rs_changes_as_many_features_as_it_may() -> None:
    asked: list[Tensor] = []
    corner = torch.arange(24).reshape(1, 4, 6) % 2 * 1.0
    x = corner.expand(6, 1, 4, 6).clone()

    def scores(rows: np.ndarray) -> np.ndarray:
        asked.append(torch.from_numpy(rows))
        flat = rows.reshape(len(rows), -1)
        return np.stack((np.full(len(rows), 99.0), flat @ np.linspace(0, 1, 24)), 1)

    y = torch.zeros(6, dtype=torch.long)
    for most, changed in ((0, 0), (1, 1), (7.5, 7), (20, 20)):
        asked.clear()
        attacked(SparseRS(), FunctionModel(scores), x, y, L0(most), 60)
        points = torch.cat(asked[1:])
        assert set((points != corner).flatten(1).sum(1).tolist()) == {changed}
    # All of a mask may change: then some corners are those that x is in.
    asked.clear()
    attacked(SparseRS(), FunctionModel(scores), x, y, L0(24), 60)
    assert float((torch.cat(asked[2:]) != corner).float().mean()) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_simba_tries_each_direction_once_forward_and_backward(basis: str) -> None:
    asked: list[Tensor] = []

    def scores(rows: np.ndarray) -> np.ndarray:
        asked.append(torch.from_numpy(rows))
        return np.tile([1.0, 0.0], (len(rows), 1))

    x, y = torch.full((2, 1, 4, 6), 0.5), torch.zeros(2, dtype=torch.long)
    attack = SimBA(basis=basis, band=1.0, stride=0.5)
    attacked(attack, FunctionModel(scores), x, y, L2(0.2), 49)
    tried = torch.stack(asked[2:]).flatten(2)[:, 0] - 0.5
    assert len(tried) == 48
    assert torch.allclose(tried[::2], -tried[1::2], atol=1e-6)
    assert torch.allclose(tried[::2] @ tried[::2].T, 0.01 * torch.eye(24), atol=1e-6)
