"""Training on turned and shifted pictures: which it picks, and who is seen to withstand them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training import moment, small

from withstand import attacks
from withstand._errors import ConfigError, DataError
from withstand.data import load_sklearn
from withstand.harden import PGD, Alternating, Average, Recipe, Spatial, Standard, Worst, harden
from withstand.models import TorchModel, warp
from withstand.threat import Linf, Threat


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_sklearn("digits", limit=200)
    return torch.from_numpy(data.x), torch.from_numpy(data.y)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    made = harden(small(), load_sklearn("digits", limit=600), Standard(), epochs=6, batch_size=32)
    return made.net


def test_the_worst_of_the_tries_is_picked(net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:20] for part in digits)
    recipe = Spatial(rotation=40, translation=0.2, tries=6)
    made = recipe.craft(net, x, y, moment())
    drawn = torch.empty(120, 3).uniform_(-1, 1, generator=moment().noise).reshape(20, 6, 3)
    for row in range(20):
        tried = []
        for angle, down, right in drawn[row].double().tolist():
            turned = warp(x[row : row + 1], angle=40 * angle, down=1.6 * down, right=1.6 * right)
            tried.append(turned)
        every = torch.cat(tried)
        with torch.no_grad():
            loss = cross_entropy(net(every), y[row].expand(6), reduction="none")
        np.testing.assert_allclose(made[row], every[loss.argmax()], atol=1e-5)


def test_motions_grow_with_the_radius_and_stay_in_the_pictures_range(
    net: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = digits[0][:8] / 2 + 0.25, digits[1][:8]
    for fill, low in (("border", 0.25), ("zeros", 0.0)):
        recipe = Spatial(fill=fill, tries=3)  # type: ignore[arg-type]
        np.testing.assert_allclose(recipe.craft(net, x, y, moment(scale=0.0)), x, atol=1e-6)
        points = recipe.craft(net, x, y, moment())
        assert float((points - x).abs().amax()) > 0.2
        assert low <= float(points.amin()) < low + 0.01
        assert float(points.amax()) <= 0.75


def test_who_withstands_is_who_the_attack_cannot_fool(
    net: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = digits
    recipe = Spatial(rotation=10, translation=0.03)
    threat = Threat(region=Linf(1.0), access="labels")
    attack = attacks.Spatial(rotation=10, translation=0.03, angles=7, shifts=3)
    found = attacks.run(attack, TorchModel(net), x, y, threat)
    with torch.no_grad():
        right = net(x).argmax(1) == y
    withstood = recipe.withstands(net, x, y, moment())
    assert torch.equal(withstood, right & ~found.success)
    assert 0.1 < float(withstood.float().mean()) < float(right.float().mean()) - 0.05


@dataclass(frozen=True, kw_only=True)
class Helpless(Spatial):
    """No one withstands it."""

    def withstands(self, net: nn.Module, x: Tensor, y: Tensor, at: Any) -> Tensor:
        return torch.zeros(len(x), dtype=torch.bool)


@pytest.mark.parametrize("several", [Alternating, Average, Worst])
def test_among_several_recipes_it_is_judged_too(several: Any) -> None:
    data, pgd = load_sklearn("digits", limit=250), PGD(region=Linf(0.01), steps=1)

    def robust(*recipes: Recipe) -> float:
        mix = several(recipes=recipes)
        made = harden(small(), data, mix, epochs=2, batch_size=32, held_out=0.3, guard=False)
        assert made.robust is not None
        assert made.history[-1].recipe == several.__name__
        return made.robust.value

    assert robust(pgd, Helpless(tries=2)) == 0
    inner: Recipe = Average(recipes=(pgd, Helpless(tries=1)))
    if several is not Worst:
        assert robust(pgd, inner) == 0
    assert robust(pgd, pgd) > 0


def test_limits_that_make_no_sense_are_refused(net: nn.Module) -> None:
    for wrong in ({"rotation": 200.0}, {"rotation": -1.0}, {"translation": 1.0}, {"tries": 0}):
        with pytest.raises(ConfigError, match="give 0 to 180 degrees"):
            Spatial(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="Spatial turns pictures"):
        Spatial().craft(net, torch.rand(4, 64), torch.zeros(4, dtype=torch.long), moment())
