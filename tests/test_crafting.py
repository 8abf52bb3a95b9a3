"""What trainings craft: points of every region, by every kind of step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from training import images, linear, moment, small, threat_of, weights

from withstand import WithstandError, attacks
from withstand.harden import (
    FGSM,
    NFGSM,
    PGD,
    Standard,
    around,
    crafting,
    sgd,
    withstood,
)
from withstand.harden._cost import Meter
from withstand.threat import L0, L1, L2, Box, Frozen, Linf, Mask, Region

REGIONS = [
    Linf(0.1),
    L2(0.5),
    L1(2.0),
    L0(3),
    Linf(0.1) & Frozen((0, 5)),
    L2(0.5) & Linf(0.2),
    L1(2.0) & Mask(np.arange(16).reshape(1, 4, 4) % 2 == 0),
    Linf(0.5) & Box(0.25, 0.75),
]


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.describe())
def test_start_and_ascent_stay_in_the_region(region: Region) -> None:
    x, _ = images()
    ball = around(region, x, moment())
    start = ball.start(torch.Generator().manual_seed(1))
    moved = ball.ascend(start, torch.randn(x.shape, generator=torch.Generator()), 1.5)
    wider = Linf(0.1 + 1e-6) if region is REGIONS[0] else None
    for points in (start, moved):
        assert not torch.equal(points, x)
        for part in (*region, Box(0.0, 1.0)):
            grown = type(part)(part.eps * (1 + 1e-5)) if hasattr(part, "eps") else part
            assert grown.contains(x.numpy(), points.numpy()).all()
    assert wider is None or wider.contains(x.numpy(), moved.numpy()).all()


@pytest.mark.parametrize(
    ("region", "gain"),
    [
        (Linf(0.1), lambda w: 0.1 * w.abs().sum()),
        (L2(0.5), lambda w: 0.5 * w.norm()),
        (L0(3), None),
    ],
)
def test_one_full_step_is_the_worst_point_of_a_linear_loss(region: Region, gain: Any) -> None:
    x, _ = images(low=0.5, high=0.5)
    w = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(3))
    points = around(region, x, moment()).ascend(x, w.expand_as(x), 1.0)
    # In L0 the three largest of what each feature gains on its way to a bound of the domain.
    expected = gain(w) if gain else (0.5 * w.abs()).flatten().topk(3).values.sum()
    assert torch.allclose(((points - x) * w).flatten(1).sum(1), expected)


def test_an_l1_step_moves_only_the_steepest_features_that_can_move() -> None:
    x = torch.full((1, 300), 0.5)
    x[0, 1] = 1.0
    gradient = torch.linspace(1, 0.01, 300)[None]
    moved = around(L1(1.0), x, moment()).ascend(x, gradient, 1.0) - x
    assert moved.nonzero()[:, 1].tolist() == [0, 2, 3]
    assert moved.sum() == pytest.approx(1.0, abs=1e-5)


def test_the_radius_grows_and_the_domain_binds() -> None:
    x, _ = images()
    half = around(Linf(0.2), x, moment(scale=0.5))
    assert float((half.problem.upper - x).max()) == pytest.approx(0.1)
    narrow = around(Linf(0.5), x, moment(domain=Box(0.2, 0.8)))
    assert (float(narrow.problem.lower.min()), float(narrow.problem.upper.max())) == (
        pytest.approx(0.2),
        pytest.approx(0.8),
    )
    assert around(L0(5), x, moment(scale=0.5)).eps == 3


@pytest.mark.parametrize(
    ("region", "domain", "words"),
    [
        (Linf(np.full(20, 0.1)), Box(0, 1), "radius for each sample"),
        (Linf(0.1) & Box(np.zeros((20, 1, 4, 4)), 1.0), Box(0, 1), "box for each sample"),
        (Linf(0.1) & Mask(np.ones((20, 1, 4, 4), bool)), Box(0, 1), "mask for each sample"),
        (L2(0.1) & L1(0.1), Box(0, 1), "one ball"),
        (Box(0, 1), Box(0, 1), "one ball"),
        (L0(3), Box(-np.inf, np.inf), "finite domain"),
    ],
)
def test_regions_that_training_cannot_use(region: Region, domain: Box, words: str) -> None:
    with pytest.raises(WithstandError, match=words):
        around(region, images()[0], moment(domain=domain))


def test_crafting_gives_modes_and_parameters_back() -> None:
    net = small(norm=True, drop=0.5).train()
    net[1].eval()
    net[5].bias.requires_grad_(False)
    before = weights(net)

    def inside() -> None:
        with crafting(net):
            assert not any(p.requires_grad for p in net.parameters())
            assert not any(module.training for module in net.modules())
            net(torch.rand(4, 1, 8, 8))
            net(torch.rand(4, 3, 8, 8))

    with pytest.raises(RuntimeError, match="channels"):
        inside()
    assert [module.training for module in net] == [True, False, True, True, True, True]
    assert [p.requires_grad for p in net.parameters()] == [True] * 5 + [False]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("recipe", [PGD(region=Linf(0.1), steps=4), FGSM(region=Linf(0.1))])
def test_a_linear_net_is_trained_on_its_worst_points(recipe: PGD | FGSM) -> None:
    net, (x, y) = linear(), images()
    weight = net[1].weight.detach()
    toward = (weight[1] - weight[0]).sign().reshape(1, 4, 4)
    # Up the loss is toward the other class, whatever the start.
    worst = x + 0.1 * torch.where(y == 0, 1.0, -1.0)[:, None, None, None] * toward
    wanted = cross_entropy(net(worst), y)
    if isinstance(recipe, FGSM):
        recipe = replace(recipe, random_start=False, step_size=1.0)
    lost = recipe.loss(net, x, y, moment())
    assert torch.allclose(lost.loss, wanted, atol=1e-6)
    assert torch.allclose(lost.scores, net(worst), atol=1e-6)
    assert lost.loss.requires_grad


def test_label_smoothing_reaches_the_loss() -> None:
    net, (x, y) = linear(), images()
    lost = Standard().loss(net, x, y, moment(smoothing=0.2)).loss
    assert torch.allclose(lost, cross_entropy(net(x), y, label_smoothing=0.2))


def test_noise_of_nfgsm_leaves_the_ball_and_not_the_domain() -> None:
    x, y = images()
    recipe = NFGSM(region=Linf(0.2) & Frozen((0,)), noise=2.0, step_size=1.0)
    points = recipe.craft(linear(), x, y, moment())
    far = (points - x).abs().flatten(1)
    assert 0.2 < float(far.max()) <= 0.6 + 1e-6
    assert float(points.min()) >= 0
    assert float(points.max()) <= 1
    assert (far[:, 0] == 0).all()
    with pytest.raises(WithstandError, match="NFGSM knows Linf"):
        NFGSM(region=L2(1.0))


@pytest.mark.parametrize("single", [False, True])
def test_what_is_withstood_costs_the_passes_that_it_tells(single: bool) -> None:
    x, y = images()
    net = linear()
    # Right by so much that no step fools it.
    net[1].weight.data *= 0.01
    net[1].bias.data = torch.tensor([9.0, 0.0])
    meter = Meter(net, sgd())
    with meter.counting(net):
        seen = withstood(
            net, x, torch.zeros_like(y), [Linf(0.1), L2(0.5)], moment(), steps=3, single=single
        )
    assert seen.multi.all()
    assert meter.backwards == len(x) * (2 * 3 + single)
    assert meter.forwards == len(x) * (1 + 2 * 4 + single)


def test_what_the_last_point_fools_is_not_withstood() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    net[1].weight.data = torch.tensor([[1.0], [-1.0]])
    # Of two steps, each of more than the radius, both end at 0.4: what is right there stays so.
    net[1].bias.data = torch.tensor([-0.41, 0.41])
    x, y = torch.tensor([[0.5]]), torch.tensor([0])
    for steps in (1, 2):
        assert not withstood(net, x, y, [Linf(0.1)], moment(), steps=steps).multi.any()
    net[1].bias.data = torch.tensor([-0.39, 0.39])
    assert withstood(net, x, y, [Linf(0.1)], moment(), steps=1).multi.all()


def test_what_is_withstood_agrees_with_the_attack_of_the_engine(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    seen = withstood(digits.net, x, y, [Linf(0.1)], moment(), steps=10, single=True, batch_size=32)
    clean = digits.net(x).argmax(1) == y
    engine = attacks.run(
        attacks.PGD(steps=10), digits.model, x, y, threat=threat_of(Linf(0.1)), seed=0
    )
    held = clean & ~engine.success
    assert torch.equal(seen.clean, clean)
    assert (seen.clean | ~seen.single).all()
    assert (seen.clean | ~seen.multi).all()
    assert abs(int(seen.multi.sum()) - int(held.sum())) <= 3
    both = withstood(digits.net, x, y, [Linf(0.1), L2(0.6)], moment(), steps=10).multi
    assert (seen.multi | ~both).all()
    assert int(both.sum()) < int(seen.multi.sum())
