"""Training methods against what they are on models whose answer is known."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand._errors import ConfigError, DataError
from withstand.config import HardenConfig
from withstand.data import Dataset, from_arrays, load_npz, load_sklearn
from withstand.evaluate import Report, evaluate, union
from withstand.harden import (
    AWP,
    IBP,
    MTLIBP,
    PGD,
    RSLAD,
    TRADES,
    ActivePGD,
    Alternating,
    Average,
    CrownIBP,
    DefensiveDistillation,
    GradientPenalty,
    Hardened,
    JacobianPenalty,
    LipschitzPenalty,
    Moment,
    NoiseAugmented,
    Recipe,
    Standard,
    Tempered,
    Worst,
    adam,
    extreme_norms,
    harden,
    lipschitz_bound,
    slope,
    withstood,
)
from withstand.harden._crafting import around
from withstand.harden._from_config import _recipe
from withstand.harden._penalties import spectral_norm
from withstand.harden._trades import divergence
from withstand.models import TorchModel, defences_of, seen_through
from withstand.threat import L0, L1, L2, Box, Budget, Frozen, Linf, Threat

EPS = 0.1
DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))


def now(seed: int = 0, **changes: Any) -> Moment:
    """A moment late in a training, its noise fresh."""
    return Moment(done=0.9, scale=1.0, noise=torch.Generator().manual_seed(seed), **changes)


def linear(seed: int = 0, features: int = 6, classes: int = 2) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(features, classes))


def conv(seed: int = 0, norm: bool = True) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = [nn.BatchNorm2d(4)] if norm else []
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            *middle,
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 3 * 3, 3),
        )


def batch(
    n: int = 8, shape: tuple[int, ...] = (1, 5, 5), classes: int = 3
) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.rand(n, *shape, generator=random)
    return x, torch.randint(classes, (n,), generator=random)


def passes(net: nn.Module) -> list[int]:
    """The number of rows of every forward of the net from now on."""
    rows: list[int] = []
    net.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    return rows


def everyone() -> dict[str, Recipe]:
    """Every recipe of this file, three steps each."""
    pgd, one = PGD(region=Linf(EPS), steps=3), PGD(region=L1(1.0), steps=3)
    return {
        "trades": TRADES(region=Linf(EPS), steps=3),
        "trades in L2": TRADES(region=L2(0.5), steps=3),
        "active": ActivePGD(region=Linf(EPS), steps=3),
        "average": Average(recipes=(pgd, one)),
        "worst": Worst(recipes=(pgd, one)),
        "alternating": Alternating(recipes=(pgd, one)),
        "awp": AWP(recipe=pgd),
        "awp around trades": AWP(recipe=TRADES(region=Linf(EPS), steps=3)),
        "tempered": Tempered(),
        "distillation": DefensiveDistillation(teacher=conv(7)),
        "rslad": RSLAD(region=Linf(EPS), teacher=conv(7), steps=3),
        "gradient": GradientPenalty(recipe=pgd, weight=0.1),
        "jacobian": JacobianPenalty(recipe=Standard(), weight=0.1),
        "lipschitz": LipschitzPenalty(recipe=pgd, weight=0.1),
    }


@pytest.mark.parametrize("name", everyone())
def test_a_recipe_leaves_everything_as_it_was_but_the_gradient(name: str) -> None:
    recipe, net, (x, y) = everyone()[name], conv().train(), batch()
    net[0].bias.requires_grad_(False)
    before, given = deepcopy(dict(net.named_parameters())), x.clone()
    lost = recipe.loss(net, x, y, now())
    torch.autograd.backward(lost.loss)
    assert lost.loss.shape == ()
    assert lost.loss.isfinite()
    assert lost.scores.shape == (8, 3)
    assert torch.equal(x, given)
    assert all(module.training for module in net.modules())
    assert net[0].bias.grad is None
    assert net[0].weight.grad is not None
    assert net[0].weight.grad.abs().max() > 0
    for key, parameter in net.named_parameters():
        assert torch.equal(parameter, before[key])
        assert parameter.requires_grad == before[key].requires_grad


@pytest.mark.parametrize("name", everyone())
def test_the_noise_alone_decides_what_a_recipe_draws(name: str) -> None:
    recipe, (x, y) = everyone()[name], batch()
    first, second, other = (recipe.loss(conv().train(), x, y, now(seed)).loss for seed in (0, 0, 1))
    assert torch.equal(first, second)
    drawn = name not in ("tempered", "distillation")
    assert torch.equal(first, other) != drawn


@pytest.mark.parametrize(
    ("name", "count"),
    [("trades", 6), ("average", 8), ("worst", 9), ("alternating", 4), ("awp", 5),
     ("awp around trades", 8), ("tempered", 1), ("distillation", 1), ("rslad", 5),
     ("gradient", 5), ("jacobian", 2)],
)  # fmt: skip
def test_a_recipe_asks_the_net_as_often_as_it_says(name: str, count: int) -> None:
    net, (x, y) = conv().train(), batch()
    rows = passes(net)
    everyone()[name].loss(net, x, y, now())
    assert rows == [8] * count


@pytest.mark.parametrize(
    ("name", "region"), [("trades", Linf(EPS)), ("trades in L2", L2(0.5)), ("active", Linf(EPS)),
                         ("rslad", Linf(EPS))]
)  # fmt: skip
def test_crafted_points_stay_in_the_region_and_the_domain(name: str, region: Any) -> None:
    recipe: Any = everyone()[name]
    x, y = batch()
    domain = Box(0.05, 0.9)
    x = x.clamp(0.05, 0.9)
    made = recipe.craft(conv(), x, y, now(domain=domain))
    assert region.distance(x, made).max() <= region.eps * (1 + 1e-5)
    assert region.distance(x, made).max() > 0.5 * region.eps
    assert made.min() >= torch.tensor(0.05)
    assert made.max() <= torch.tensor(0.9)
    half = recipe.craft(conv(), x, y, replace(now(domain=domain), scale=0.5))
    assert region.distance(x, half).max() <= region.eps / 2 * (1 + 1e-5)


@pytest.mark.parametrize("region", [Linf(EPS), L2(0.5), L1(2.0), L0(3)])
def test_a_step_of_nobody_is_none(region: Any) -> None:
    """Whoever withstood is all gone: what watches a training asks for that."""
    x, _ = batch()
    nobody = x[:0]
    ball = around(region, x, now(domain=Box(0, 1))).take(torch.zeros(0, dtype=torch.long))
    assert ball.ascend(nobody, nobody, 0.5).shape == nobody.shape


def test_divergence_is_summed_over_classes() -> None:
    random = torch.Generator().manual_seed(0)
    scores, wanted = torch.randn(2, 5, 7, generator=random)
    p, q = wanted.softmax(1), scores.softmax(1)
    expected = (p * (p / q).log()).sum()
    assert torch.allclose(divergence(scores, wanted.log_softmax(1)), expected)
    # Classes that nobody gives any chance change nothing.
    empty = torch.full((5, 90), -1e4)
    more, sure = torch.cat((scores, empty), 1), torch.cat((wanted, empty), 1)
    assert torch.allclose(divergence(more, sure.log_softmax(1)), expected, rtol=1e-4)


def test_trades_finds_the_worst_corner_of_a_linear_model() -> None:
    net, (x, y) = linear(), batch(64, (6,), 2)
    x = 0.3 + 0.4 * x
    recipe = TRADES(region=Linf(EPS), steps=20)
    made = recipe.craft(net, x, y, now())
    weight = (net[1].weight[1] - net[1].weight[0]).detach()
    clean = net(x).log_softmax(1)
    # The margin moves by eps |w|_1 at most, one way or the other, as the start lies.
    ends = torch.stack([
        torch.stack([divergence(net(x[i : i + 1] + sign * EPS * weight.sign()), clean[i : i + 1])
                     for i in range(len(x))])
        for sign in (-1, 1)
    ])  # fmt: skip
    found = torch.stack([divergence(net(made[i : i + 1]), clean[i : i + 1]) for i in range(64)])
    assert torch.isclose(found, ends, rtol=1e-3).any(0).all()
    assert (found > 0.3 * ends.amax(0)).all()
    lost = replace(recipe, beta=3.0).loss(net, x, y, now())
    assert torch.allclose(lost.loss, cross_entropy(net(x), y) + 3 * found.mean(), rtol=1e-4)
    assert torch.allclose(lost.scores, net(made))


def test_active_pgd_that_never_leaves_is_pgd() -> None:
    net, (x, y) = conv(), batch(32)
    plain = PGD(region=Linf(EPS), steps=5).craft(net, x, y, now())
    recipe = ActivePGD(region=Linf(EPS), steps=5, extra=5, calm=0.0)
    assert torch.allclose(recipe.craft(net, x, y, now()), plain, atol=1e-6)


@pytest.mark.parametrize(("extra", "taken"), [(0, 0), (1, 1), (2, 2), (None, 3)])
def test_active_pgd_leaves_the_fooled_where_they_are_fooled(extra: int | None, taken: int) -> None:
    net, (x, y) = conv().eval(), batch(32)
    right = net(x).argmax(1)
    y = torch.where(torch.arange(32) < 10, (right + 1) % 3, right)
    recipe = ActivePGD(
        region=Linf(1e-4), steps=6, extra=extra, random_start=False, step_size=0.25, calm=0.0
    )
    rows = passes(net)
    made = recipe.craft(net, x, y, now())
    # Nobody is fooled within 1e-4 but those who were before.
    assert rows == [32] * max(taken, 1) + [22] * (6 - max(taken, 1))
    moved = Linf.distance(x, made)
    assert torch.allclose(
        torch.tensor(moved[:10]), torch.tensor(0.25e-4 * taken).double(), atol=1e-7
    )
    assert torch.allclose(torch.tensor(moved[10:]), torch.tensor(1e-4).double(), atol=1e-7)


def test_active_pgd_leaves_the_calm_at_half_of_the_steps() -> None:
    net, (x, _) = conv().eval(), batch(32)
    y = net(x).argmax(1)
    loss = cross_entropy(net(x), y, reduction="none")
    calm = float(loss.detach().sort().values[12:14].mean())
    recipe = ActivePGD(region=Linf(1e-6), steps=6, extra=9, calm=calm, random_start=False)
    rows = passes(net)
    recipe.craft(net, x, y, now())
    assert rows == [32, 32, 32, 32, 19, 19]


def test_average_is_the_mean_and_worst_the_worst_of_each_sample() -> None:
    net, (x, y) = conv(norm=False), batch(32)
    parts = (PGD(region=Linf(EPS), random_start=False), PGD(region=L2(0.4), random_start=False))
    losses = [part.loss(net, x, y, now()).loss for part in parts]
    mean = Average(recipes=parts).loss(net, x, y, now()).loss
    assert torch.allclose(mean, (losses[0] + losses[1]) / 2)
    each = torch.stack(
        [cross_entropy(net(p.craft(net, x, y, now())), y, reduction="none") for p in parts]
    )
    worst = Worst(recipes=parts).loss(net, x, y, now())
    assert torch.allclose(worst.loss, each.amax(0).mean())
    assert worst.loss > max(losses)
    assert Worst(recipes=parts).regions == Average(recipes=parts).regions
    assert len(Worst(recipes=parts).regions) == 2


def test_alternating_draws_by_its_shares() -> None:
    net, (x, y) = conv(norm=False), batch(4)
    low, high = Tempered(temperature=1.0), Tempered(temperature=1e6)
    recipe = Alternating(recipes=(low, high), shares=(3, 1))
    noise = torch.Generator().manual_seed(0)
    at = Moment(done=0.0, scale=1.0, noise=noise)
    least = low.loss(net, x, y, at).loss
    drawn = sum(bool(recipe.loss(net, x, y, at).loss == least) for _ in range(400))
    assert 265 <= drawn <= 335
    extreme = extreme_norms(linf=0.3, l1=10.0)
    assert [region.describe() for region in extreme.regions] == ["Linf <= 0.3", "L1 <= 10"]


def test_awp_takes_the_loss_uphill_in_the_weights_at_the_same_points() -> None:
    net, (x, y) = linear(classes=3), batch(16, (6,))
    inner = PGD(region=Linf(EPS), steps=2)
    points = inner.craft(net, x, y, now())
    weight, bias = net[1].weight.detach().clone(), net[1].bias.detach().clone()
    slope = torch.autograd.grad(cross_entropy(net(points), y), net[1].weight)[0]
    shifted = (weight + 0.1 * weight.norm() * slope / slope.norm()).requires_grad_()
    expected = cross_entropy(points @ shifted.T + bias, y)
    (gradient,) = torch.autograd.grad(expected, shifted)
    lost = AWP(recipe=inner, gamma=0.1).loss(net, x, y, now())
    assert torch.allclose(lost.loss, expected)
    assert lost.loss > inner.loss(net, x, y, now()).loss
    assert torch.allclose(torch.autograd.grad(lost.loss, net[1].weight)[0], gradient)
    early = replace(AWP(recipe=inner, gamma=0.1), start=0.95)
    assert torch.equal(early.loss(net, x, y, now()).loss, inner.loss(net, x, y, now()).loss)


def test_awp_crafts_once_and_batch_norm_learns_once() -> None:
    (x, y), inner = batch(), PGD(region=Linf(EPS), steps=4)
    net, same = conv().train(), conv().train()
    rows = passes(net)
    AWP(recipe=inner, gamma=1e-6).loss(net, x, y, now())
    inner.loss(same, x, y, now())
    assert len(rows) == 4 + 2
    assert net[1].num_batches_tracked == same[1].num_batches_tracked == 1
    assert torch.allclose(net[1].running_mean, same[1].running_mean, atol=1e-5)


def test_distillation_is_done_where_the_student_is_the_teacher() -> None:
    net, (x, y) = conv().eval(), batch()
    teacher = deepcopy(net)
    lost = DefensiveDistillation(teacher=teacher, temperature=5.0).loss(net, x, y, now())
    p = (teacher(x) / 5).softmax(1)
    assert torch.allclose(lost.loss, -(p * p.log()).sum(1).mean())
    assert torch.autograd.grad(lost.loss, net[0].weight)[0].abs().max() < 1e-6
    tempered = Tempered(temperature=5.0).loss(net, x, y, now()).loss
    assert torch.allclose(tempered, cross_entropy(net(x) / 5, y))
    assert DefensiveDistillation(teacher=teacher).regions == ()


def test_rslad_learns_the_teachers_answers_near_and_far() -> None:
    net, teacher, (x, y) = conv(norm=False), conv(7, norm=False), batch()
    p = teacher(x).softmax(1).detach()

    def apart(scores: Tensor) -> Tensor:
        return (p * (p.log() - scores.log_softmax(1))).sum(1).mean()

    recipe = RSLAD(region=Linf(EPS), teacher=teacher, steps=5)
    far = recipe.craft(net, x, y, now())
    lost = recipe.loss(net, x, y, now())
    assert torch.allclose(lost.loss, apart(net(x)) / 6 + 5 * apart(net(far)) / 6)
    assert apart(net(far)) > apart(net(x))
    assert replace(recipe, alpha=0.0, teacher=net).loss(net, x, y, now()).loss.abs() < 1e-6
    assert not teacher[0].weight.grad


def test_the_gradient_penalty_of_a_linear_model_is_its_weights_norm() -> None:
    net, (x, y) = linear(), batch(16, (6,), 2)
    wrong = net(x).softmax(1).gather(1, 1 - y[:, None])[:, 0]
    length = (net[1].weight[1] - net[1].weight[0]).square().sum()
    plain = Standard().loss(net, x, y, now()).loss
    lost = GradientPenalty(recipe=Standard(), weight=2.0).loss(net, x, y, now())
    assert torch.allclose(lost.loss - plain, 2 * (wrong.square().mean() * length), rtol=1e-4)


def test_the_jacobian_penalty_is_half_the_frobenius_norm_in_the_mean() -> None:
    net, (x, y) = linear(classes=4), batch(500, (6,))
    recipe = JacobianPenalty(recipe=Standard(), weight=1.0, projections=20)
    found = recipe.penalty(net, x, y, now().noise)
    assert torch.isclose(found, net[1].weight.square().sum() / 2, rtol=0.03)
    one = linear(classes=1)
    exact = replace(recipe, projections=1).penalty(one, x, y, now().noise)
    assert torch.isclose(exact, one[1].weight.square().sum() / 2)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 7), (12,)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 5)),
    "conv 1d": (lambda: nn.Conv1d(2, 3, 3, padding=2, dilation=2), (2, 9)),
    "batch norm": (lambda: nn.BatchNorm2d(3), (3, 2, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norms_are_those_of_the_decomposition(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make, shape = LAYERS[name]
        layer = make().eval()
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    origin = torch.zeros(1, *shape)
    jacobian: Any = torch.autograd.functional.jacobian(layer, origin)
    matrix = jacobian.reshape(-1, origin.numel())
    exact = torch.linalg.svdvals(matrix)[0]
    found = spectral_norm(layer, shape, iterations=300, noise=now().noise)
    assert torch.isclose(found, exact, rtol=1e-3)
    assert spectral_norm(layer, shape, iterations=2, noise=now().noise) <= exact * (1 + 1e-5)
    # d sigma / d W is u v^T: along W itself sigma grows by itself.
    weight = next(layer.parameters())
    (slope,) = torch.autograd.grad(found, weight)
    assert torch.isclose((slope * weight).sum(), found, rtol=1e-3)


def test_the_lipschitz_bound_bounds_and_its_penalty_is_of_the_same_norms() -> None:
    net, (x, _) = conv().eval(), batch(64)
    bound = lipschitz_bound(net, x)
    stretched = (net(x) - net(x.flip(0))).norm(dim=1) / (x - x.flip(0)).flatten(1).norm(dim=1)
    assert 0 < stretched.max() <= bound * (1 + 1e-5)
    noise = now().noise
    norms = [
        spectral_norm(layer, shape, iterations=100, noise=noise)
        for layer, shape in ((net[0], (1, 5, 5)), (net[1], (4, 3, 3)), (net[4], (36,)))
    ]
    assert bound == pytest.approx(float((norms[0] * norms[1] * norms[2]).detach()), rel=1e-3)
    penalty = LipschitzPenalty(recipe=Standard(), weight=1.0, iterations=100)
    found = penalty.penalty(net, x, torch.zeros(64), now().noise)
    assert torch.isclose(found, sum(norm.square() for norm in norms) / 2, rtol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TRADES(region=Linf(0.1), beta=-1.0),
        lambda: TRADES(region=Linf(0.1), steps=0),
        lambda: ActivePGD(region=Linf(0.1), extra=-1),
        lambda: Average(recipes=(Standard(),)),
        lambda: Alternating(recipes=(Standard(), Standard()), shares=(1.0,)),
        lambda: Alternating(recipes=(Standard(), Standard()), shares=(1.0, 0.0)),
        lambda: AWP(recipe=Standard(), gamma=float("nan")),
        lambda: Tempered(temperature=0.0),
        lambda: RSLAD(region=Linf(0.1), teacher=nn.Identity(), alpha=1.5),
        lambda: GradientPenalty(recipe=Standard(), weight=-1.0),
        lambda: JacobianPenalty(recipe=Standard(), weight=1.0, projections=0),
        lambda: LipschitzPenalty(recipe=Standard(), weight=1.0, iterations=0),
    ],
)
def test_settings_without_sense_are_refused_with_a_fix(make: Callable[[], Recipe]) -> None:
    with pytest.raises(ConfigError, match="give"):
        make()


def test_a_configuration_names_the_recipes_that_need_no_more_than_a_region() -> None:
    region = Linf(EPS)
    assert _recipe(HardenConfig(recipe="active", steps=3), region) == ActivePGD(
        region=region, steps=3
    )
    assert _recipe(HardenConfig(recipe="trades"), region) == TRADES(region=region, steps=7)
    with pytest.raises(ConfigError, match="trades, not fgsm"):
        _recipe(HardenConfig(recipe="fgsm", steps=3), region)


def test_a_configuration_names_recipes_of_several_norms_noise_and_bounds() -> None:
    region = Linf(EPS) & Frozen((0,))
    norms = [{"norm": "l2", "eps": 0.5}, {"norm": "l0", "eps": 3}]
    for name, kind in (("average", Average), ("worst", Worst), ("alternating", Alternating)):
        made = _recipe(HardenConfig(recipe=name, norms=norms, steps=2), region)
        assert isinstance(made, kind)
        assert [one.steps for one in made.recipes] == [2, 2, 2]
        assert [[type(part) for part in one] for one in made.regions] == [
            [Linf, Frozen],
            [L2, Frozen],
            [L0, Frozen],
        ]
        assert [next(iter(one)).eps for one in made.regions] == [EPS, 0.5, 3.0]
    assert _recipe(HardenConfig(recipe="noise", sigma=0.3), region) == NoiseAugmented(sigma=0.3)
    assert _recipe(HardenConfig(recipe="ibp", clean=0.0), region) == IBP(region=region, clean=0.0)
    assert _recipe(HardenConfig(recipe="crown_ibp"), region) == CrownIBP(region=region)
    mixed = _recipe(HardenConfig(recipe="mtl_ibp", share=0.1, steps=3), region)
    assert mixed == MTLIBP(region=region, share=0.1, steps=3)
    several = HardenConfig(
        recipe="alternating", norms=norms, shares=[1, 4, 2], random_start=False, steps=2
    )
    drawn = _recipe(several, region)
    assert drawn.shares == [1, 4, 2]
    assert not any(one.random_start for one in drawn.recipes)
    own = [{"norm": "l1", "eps": 10, "random_start": False, "step_size": 0.25}]
    mended = HardenConfig(recipe="alternating", norms=own, shares=[1, 4], steps=5)
    wanted = Alternating(
        recipes=[
            PGD(region=Linf(0.3), steps=5),
            PGD(region=L1(10.0), steps=5, step_size=0.25, random_start=False),
        ],
        shares=[1.0, 4.0],
    )
    assert repr(_recipe(mended, Linf(0.3))) == repr(wanted)
    traded = _recipe(HardenConfig(recipe="trades", beta=3), region)
    assert traded == TRADES(region=region, steps=7, beta=3.0)
    active = _recipe(HardenConfig(recipe="active", calm=0, extra=1), region)
    assert active == ActivePGD(region=region, steps=7, calm=0.0, extra=1)
    assert _recipe(HardenConfig(recipe="active"), region) == ActivePGD(region=region, steps=7)
    near = _recipe(HardenConfig(recipe="pgd", awp={"gamma": 0.01, "start": 0.5}), region)
    assert near == AWP(recipe=PGD(region=region, steps=7), gamma=0.01, start=0.5)
    wrongs = {
        "has 2 numbers for 3 balls": {"recipe": "alternating", "norms": norms, "shares": [1, 2]},
        "only for alternating": {"recipe": "worst", "norms": norms, "shares": [1, 2, 3]},
        "only for trades": {"recipe": "pgd", "beta": 3},
        "calm is only for active": {"recipe": "pgd", "calm": 0.1},
        "extra is only for active": {"recipe": "trades", "extra": 1},
        "random_start is only for pgd": {"recipe": "fgsm", "random_start": False},
        "awp is only for fgsm": {"recipe": "ibp", "awp": {}},
        "norms are missing": {"recipe": "worst"},
        "sigma is missing": {"recipe": "noise"},
        "only for noise": {"recipe": "pgd", "sigma": 0.3},
        "only for average": {"recipe": "pgd", "norms": norms},
        "only for ibp": {"recipe": "mtl_ibp", "clean": 0.3},
        "only for mtl_ibp": {"recipe": "ibp", "share": 0.3},
    }
    for words, asked in wrongs.items():
        with pytest.raises(ValueError, match=words):
            HardenConfig(**asked)


def test_the_union_counts_who_withstands_every_threat() -> None:
    net, (x, _) = linear(features=8, classes=3), batch(40, (8,))
    with torch.no_grad():
        net[1].bias.sub_(net(x).mean(0))
    data = from_arrays(x.numpy(), net(x).argmax(1).numpy())
    model = TorchModel(net)
    reports = {
        name: evaluate(model, data, Threat(region=region), preset="smoke")
        for name, region in {"Linf": Linf(0.05), "L1": L1(0.2)}.items()
    }
    fooled = [
        {i for i, s in enumerate(r.samples.status) if s == "fooled"} for r in reports.values()
    ]
    assert fooled[0] - fooled[1]
    assert fooled[1] - fooled[0]
    both = union(reports)
    assert both.value == pytest.approx(1 - len(fooled[0] | fooled[1]) / 40)
    assert (both.n, both.low < both.value < both.high) == (40, True)
    assert union({"Linf": reports["Linf"]}) == reports["Linf"].robust_accuracy
    less = {"preset": "smoke", "budget": Budget(forwards=2)}
    other = evaluate(model, data.take(range(39)), Threat(region=Linf(0.05)), **less)
    with pytest.raises(DataError, match="other is of another data than that on Linf"):
        union({**reports, "other": other})
    with pytest.raises(DataError, match="0 reports"):
        union({})


def known() -> tuple[Tensor, Tensor]:
    digits = load_sklearn("digits").take(np.arange(1500))
    return torch.from_numpy(digits.x), torch.from_numpy(digits.y)


def fit(
    recipe: Recipe, *, epochs: int = 4, rate: float = 0.05, begun: nn.Module | None = None
) -> nn.Module:
    """A small network for digits after some epochs of a recipe, the radius growing at first."""
    x, y = known()
    noise = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = deepcopy(begun) or nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
        )
    weights = list(net.parameters())
    speeds = [torch.zeros_like(weight) for weight in weights]
    batches = [
        rows for _ in range(epochs) for rows in torch.randperm(1500, generator=noise).split(64)
    ]
    for step, rows in enumerate(batches):
        done = step / len(batches)
        at = Moment(done=done, scale=min(1.0, 3 * done), noise=noise)
        lost = recipe.loss(net, x[rows], y[rows], at).loss
        slopes = torch.autograd.grad(lost, weights)
        # Momentum by hand: torch.optim takes longer to import than this to train.
        with torch.no_grad():
            for weight, speed, gradient in zip(weights, speeds, slopes, strict=True):
                weight.sub_(rate * speed.mul_(0.9).add_(gradient))
    return net.eval()


def shares(net: nn.Module, *regions: Any) -> tuple[float, float]:
    """Shares of 297 unseen digits that are right, and right all along PGD-20 in every region."""
    digits = load_sklearn("digits").take(np.arange(1500, 1797))
    x, y = torch.from_numpy(digits.x), torch.from_numpy(digits.y)
    seen = withstood(net, x, y, regions, now(), steps=20)
    return float(seen.clean.float().mean()), float(seen.multi.float().mean())


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return fit(Standard())


@pytest.fixture(scope="module")
def robust() -> nn.Module:
    return fit(PGD(region=Linf(EPS), steps=3))


@pytest.mark.parametrize("name", ["pgd", "trades", "awp", "rslad"])
def test_adversarial_training_hardens(name: str, plain: nn.Module, robust: nn.Module) -> None:
    region = Linf(EPS)
    recipes = {
        "trades": TRADES(region=region, steps=3),
        "awp": AWP(recipe=ActivePGD(region=region, steps=3)),
        "rslad": RSLAD(region=region, teacher=robust, steps=3),
    }
    clean, withstanding = shares(robust if name == "pgd" else fit(recipes[name]), region)
    assert clean > 0.8
    assert withstanding > shares(plain, region)[1] + 0.1


def test_alternating_norms_mends_the_norm_that_was_not_trained(robust: nn.Module) -> None:
    regions = Linf(EPS), L1(3.0)
    recipe = Alternating(recipes=tuple(PGD(region=region, steps=4) for region in regions))
    both = fit(recipe, epochs=3, begun=robust)
    assert shares(both, *regions)[1] > shares(robust, *regions)[1] + 0.05


def test_defensive_distillation_hides_the_slope(plain: nn.Module) -> None:
    teacher = fit(Tempered(), rate=0.5)
    student = fit(DefensiveDistillation(teacher=teacher), rate=0.5, epochs=8)
    x, y = known()
    usual, hidden = (slope(net, x, y).flatten(1).norm(dim=1).median() for net in (plain, student))
    assert hidden < 0.01 * usual


def test_a_distilled_student_declares_what_it_hides() -> None:
    recipe = AWP(recipe=DefensiveDistillation(teacher=conv(7), temperature=30.0))
    x, y = batch(64)
    data = from_arrays(x.numpy(), y.numpy())
    made = harden(conv(), data, recipe, epochs=1, held_out=0.1, batch_size=32)
    (defence,) = defences_of(made.model)
    assert (defence.name, defence.masks) == ("distilled (temperature 30)", True)
    torch.testing.assert_close(30 * seen_through(made.model).scores(x), made.model.scores(x))
    plain = harden(conv(), data, Standard(), epochs=1, held_out=0.1, batch_size=32)
    assert defences_of(plain.model) == ()


@pytest.mark.parametrize("kind", [GradientPenalty, JacobianPenalty, LipschitzPenalty])
def test_penalties_lower_what_they_penalise(kind: Any, plain: nn.Module) -> None:
    weight = {GradientPenalty: 1.0, JacobianPenalty: 0.1, LipschitzPenalty: 0.05}[kind]
    penalty = kind(recipe=Standard(), weight=weight)
    x, y = known()
    before = penalty.penalty(plain, x, y, now().noise)
    after = penalty.penalty(fit(penalty), x, y, now().noise)
    assert after < 0.7 * before


def mnist(part: str, limit: int | None = None) -> Dataset:
    path = DATA / "mnist.npz"
    if not path.exists():
        pytest.skip(f"no mnist.npz in {DATA}; set WITHSTAND_DATA")
    return load_npz(path, f"x_{part}", f"y_{part}", scale=255, limit=limit)


def trained(
    recipe: Recipe, data: Dataset, epochs: int, begun: nn.Module | None = None, **settings: Any
) -> Hardened:
    """The small network of fast adversarial training after a recipe, seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = begun or nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        )
    return harden(net, data, recipe, epochs=epochs, optimizer=adam(4e-3), **settings)


def reported(net: nn.Module, region: Any) -> Report:
    return evaluate(TorchModel(net), mnist("test", 1000), Threat(region=region))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_active_pgd_saves_a_seventh_of_the_passes_and_hardly_costs_robustness() -> None:
    data, test, found = mnist("train"), mnist("test", 2000), []
    for recipe in (PGD(region=Linf(0.3), steps=7), ActivePGD(region=Linf(0.3), steps=7)):
        made = trained(recipe, data, 10, growth=0.4)
        report = evaluate(TorchModel(made.net), test, Threat(region=Linf(0.3)))
        found.append((made.cost.passes, report.robust_accuracy.value))
    (all_, plain), (fewer, kept) = found
    assert fewer < 0.85 * all_, found
    # Over three seeds it costs less than a point; rounding alone moves either by as much.
    assert kept > plain - 0.01, found


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_three_epochs_of_alternating_norms_help_a_network_of_one_norm() -> None:
    data, test = mnist("train"), mnist("test", 200)
    linf, l1 = Linf(0.3), L1(10.0)
    one = trained(ActivePGD(region=linf, steps=4), data, 6, growth=0.4)
    report = reported(one.net, linf)
    assert report.clean_accuracy.value > 0.975
    assert report.robust_accuracy.value > 0.84
    both = Alternating(
        recipes=(
            PGD(region=linf, steps=5),
            PGD(region=l1, steps=5, step_size=0.25, random_start=False),
        ),
        shares=(1, 4),
    )
    several = trained(both, data, 3, begun=one.net, guard=False)
    before, after = (
        evaluate(TorchModel(net), test, Threat(region=l1)).robust_accuracy.value
        for net in (one.net, several.net)
    )
    assert before < 0.2
    assert after > before + 0.1
