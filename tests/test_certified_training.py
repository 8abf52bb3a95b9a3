"""Certified training: the losses against the bounds they are made of, and what they achieve."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand._errors import ThreatError
from withstand.certify.bounds import prove, trace, worst_leads
from withstand.certify.bounds._crown import intervals
from withstand.certify.bounds._operations import Interval
from withstand.certify.bounds._reach import Reach
from withstand.data import Dataset, load_npz, load_sklearn
from withstand.harden import (
    FGSM,
    IBP,
    MTLIBP,
    PGD,
    CrownIBP,
    Moment,
    Recipe,
    adam,
    cyclic,
    flat,
    harden,
    ibp_weights,
)
from withstand.models import TorchModel
from withstand.threat import L2, Linf, Threat

DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def moment(scale: float = 1.0) -> Moment:
    return Moment(done=0.5, scale=scale, noise=torch.Generator().manual_seed(0))


def small(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 8),
        nn.ReLU(),
        nn.Linear(8, classes),
    )


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])


def test_functions_have_the_same_bounds_in_whatever_order_they_come() -> None:
    net, (x, _) = small().eval(), batch()
    graph, box = trace(net, x), Interval((x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1))
    bounded = intervals(graph, Reach(x, box))
    a, owner, order = torch.randn(18, 4), torch.arange(6).repeat_interleave(3), torch.randperm(18)
    with torch.no_grad():
        sorted_ = bounded.least(graph.output, a, owner, near=True)
        mixed = bounded.least(graph.output, a[order], owner[order], near=True)
        values = torch.linalg.vecdot(a, graph(box.upper)[owner])
    np.testing.assert_allclose(mixed, sorted_[order], rtol=1e-4, atol=1e-5)
    assert (sorted_ <= values + 1e-5).all()


@pytest.mark.parametrize("crown", [False, True])
def test_worst_leads_hold_for_all_reachable_inputs(crown: bool) -> None:
    net, (x, y) = small().eval(), batch()
    lower, upper = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    leads = worst_leads(trace(net, x), lower, upper, y, crown=crown)
    assert leads.shape == (6, 3)
    for _ in range(50):
        x_adv = torch.where(torch.rand_like(x) < 0.5, lower, upper)
        with torch.no_grad():
            scores = net(x_adv)
        lead = scores.gather(1, y[:, None]) - scores
        others = lead[torch.arange(4) != y[:, None]].reshape(6, 3)
        assert (leads <= others + 1e-5).all()


def test_interval_loss_at_radius_0_is_the_clean_loss() -> None:
    net, (x, y) = small().eval(), batch()
    clean = float(cross_entropy(net(x), y).detach())
    for recipe in (
        IBP(region=Linf(0.0), clean=0.0),
        CrownIBP(region=Linf(0.0), clean=0.0, crown=0.5),
        MTLIBP(region=Linf(0.0)),
    ):
        assert float(recipe.loss(net, x, y, moment()).loss.detach()) == pytest.approx(
            clean, abs=1e-5
        )


def test_gradients_reach_every_weight_and_are_the_slopes_of_the_loss() -> None:
    net, (x, y) = small().double().eval(), batch()
    x = x.double()
    for recipe in (
        IBP(region=Linf(0.1)),
        CrownIBP(region=Linf(0.1), crown=0.5),
        MTLIBP(region=Linf(0.1), steps=2),
    ):
        loss = recipe.loss(net, x, y, moment()).loss
        grads = torch.autograd.grad(loss, list(net.parameters()))
        assert all((grad != 0).any() for grad in grads)
        slopes = torch.cat([grad.flatten() for grad in grads])
        if isinstance(recipe, MTLIBP):
            continue
        step = 1e-6 * torch.randn(len(slopes), dtype=torch.float64)
        begin = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
        values = []
        for sign in (1, -1):
            nn.utils.vector_to_parameters(begin + sign * step, net.parameters())
            values.append(float(recipe.loss(net, x, y, moment()).loss.detach()))
        nn.utils.vector_to_parameters(begin, net.parameters())
        assert values[0] - values[1] == pytest.approx(float(2 * slopes @ step), rel=1e-3)


def test_shares_mix_the_losses_that_they_name() -> None:
    net, (x, y) = small().eval(), batch()
    region = Linf(0.1)

    def loss(recipe: Recipe, scale: float = 1.0) -> float:
        return float(recipe.loss(net, x, y, moment(scale)).loss.detach())

    clean = float(cross_entropy(net(x), y).detach())
    assert loss(IBP(region=region, clean=0.2), scale=0.0) == pytest.approx(clean)
    half = (loss(IBP(region=region, clean=0.0)) + clean) / 2
    assert loss(IBP(region=region, clean=0.5)) == pytest.approx(half)
    alone = loss(IBP(region=Linf(0.05), clean=0.0))
    assert loss(IBP(region=region, clean=0.0), scale=0.5) == pytest.approx(alone)
    assert loss(IBP(region=region, clean=0.0), scale=0.0) == pytest.approx(clean)
    assert loss(CrownIBP(region=region, crown=0.0)) == pytest.approx(half)
    assert loss(CrownIBP(region=region, crown=1.0)) < half
    attacked = loss(PGD(region=region, steps=1))
    assert loss(MTLIBP(region=region, share=0.0)) == pytest.approx(attacked)
    assert loss(MTLIBP(region=region, share=1.0)) == pytest.approx(
        loss(IBP(region=region, clean=0.0))
    )
    with pytest.raises(ThreatError, match="certified training needs Linf"):
        IBP(region=L2(0.5)).loss(net, x, y, moment())


def test_drawn_weights_keep_intervals_as_wide_as_they_are() -> None:
    def growth(net: nn.Module) -> float:
        x = torch.rand(8, 1, 16, 16)
        box = trace(net, x).intervals(Interval(x - 0.1, x + 0.1))
        return float((box[-1].upper - box[-1].lower).detach().mean()) / 0.2

    layers: list[Any] = [nn.Conv2d(1, 16, 3, padding=1)]
    for _ in range(5):
        layers += [nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    net = nn.Sequential(*layers, nn.Flatten())
    usual = growth(net)
    ibp_weights(net, seed=0)
    assert growth(net) < 3
    assert usual > 10 * growth(net)


@pytest.fixture(scope="module")
def digits_split() -> tuple[Dataset, Dataset]:
    data = load_sklearn("digits")
    return data.take(np.arange(1500)), data.take(np.arange(1500, 1700))


def certified(net: nn.Module, data: Dataset, eps: float, method: str = "crown") -> float:
    found = prove(TorchModel(net), data.x, data.y, Threat(region=Linf(eps)), method=method)
    return found.certified_accuracy.value


def trained(data: Dataset, recipe: Recipe, *, most: float, steps: int = 300) -> nn.Module:
    """A network trained while the share of the radius grows to `most`."""
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    ibp_weights(net, seed=0)
    noise = torch.Generator().manual_seed(0)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(steps):
        rows = torch.randint(0, len(x), (100,), generator=noise)
        scale = min(most, 1.6 * step / steps)
        at = Moment(done=step / steps, scale=scale, noise=noise)
        optimizer.zero_grad()
        torch.autograd.backward(recipe.loss(net, x[rows], y[rows], at).loss)
        optimizer.step()
    return net


def test_trained_network_is_proven_where_a_standard_one_is_not(
    digits_split: tuple[Dataset, Dataset],
) -> None:
    train, unseen = digits_split
    hardened = trained(train, IBP(region=Linf(0.06)), most=1.0)
    assert certified(hardened, unseen, 0.05, "ibp") > 0.5
    standard = trained(train, IBP(region=Linf(0.06)), most=0.0)
    assert certified(standard, unseen, 0.05, "ibp") < 0.1


def cnn() -> nn.Sequential:
    """The MNIST network of fast adversarial training (Wong et al. 2020)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


class Forgetful(IBP):
    """Proves less after each epoch."""

    left: ClassVar[list[int]] = []

    def proven(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Tensor:
        count = self.left.pop(0)
        return torch.arange(len(y)) < count


@pytest.mark.parametrize(("counts", "kept"), [([9, 5, 3], 1), ([2, 8, 3], 2), ([4, 4, 4], None)])
def test_the_weights_with_the_most_proofs_are_kept(counts: list[int], kept: int | None) -> None:
    digits = load_sklearn("digits")
    Forgetful.left = [*counts]
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    recipe = Forgetful(region=Linf(0.01))
    options: dict[str, Any] = {"epochs": 3, "growth": 0.0, "guard": False, "ema": 0}
    done = harden(net, digits, recipe, optimizer=adam(0.01), **options)
    # Where as much is proven, what withstands PGD decides.
    best = max(done.history, key=lambda epoch: (epoch.robust, epoch.clean, epoch.number))
    assert done.epoch == (best.number if kept is None else kept)
    assert not Forgetful.left


def test_what_is_held_out_is_proven_with_the_weights_that_are_kept(
    digits_split: tuple[Dataset, Dataset],
) -> None:
    train, apart = (
        part.take(np.arange(n)) for part, n in zip(digits_split, (300, 80), strict=True)
    )
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    settings: dict[str, Any] = {"epochs": 2, "held_out": apart, "optimizer": adam(0.02)}
    region = Linf(0.02)
    done = harden(net, train, MTLIBP(region=region), guard=False, **settings)
    assert done.certified is not None
    assert done.robust is not None
    proven = prove(done.model, apart.x, apart.y, Threat(region=region), method="crown-ibp").proven
    assert done.certified.value == proven.mean()
    assert 0 < done.certified.value <= done.robust.value
    told = done.to_dict()["held_out"]
    assert told["certified_accuracy_at_least"] == done.certified.to_dict()
    plain = harden(net, train, PGD(region=region, steps=1), guard=False, **settings)
    assert plain.certified is None
    assert plain.to_dict()["held_out"]["certified_accuracy_at_least"] is None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("recipe", "epochs", "eps", "least"),
    [
        (IBP(region=Linf(0.15), clean=0.0), 8, 0.1, 0.93),
        (IBP(region=Linf(0.34), clean=0.0), 8, 0.3, 0.80),
        (FGSM(region=Linf(0.3)), 10, 0.1, 0.93),
    ],
)
def test_mnist_is_proven_at_the_radii_of_the_literature(
    recipe: Recipe, epochs: int, eps: float, least: float
) -> None:
    path = DATA / "mnist.npz"
    if not path.exists():
        pytest.skip(f"no mnist.npz in {DATA}; set WITHSTAND_DATA")
    train = load_npz(path, "x_train", "y_train", scale=255)
    unseen = load_npz(path, "x_test", "y_test", scale=255, limit=1000)
    intervals = isinstance(recipe, IBP)
    net = cnn()
    if intervals:
        ibp_weights(net, seed=0)
    done = harden(
        net,
        train,
        recipe,
        epochs=epochs,
        growth=0.5 if intervals else 0.0,
        guard=not intervals,
        ema=0,
        optimizer=adam(3e-3),
        schedule=flat(0.6) if intervals else cyclic,
    )
    assert certified(done.net, unseen, eps, "crown-ibp" if intervals else "crown") >= least
