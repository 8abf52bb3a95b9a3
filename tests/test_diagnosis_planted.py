"""Each planted defect is noticed by the check that is named for it, at 200 samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from withstand import WithstandError
from withstand.evaluate import evaluate
from withstand.evaluate.diagnosis import diagnose_attack
from withstand.models import TorchModel
from withstand.testing.planted import PLANTED, Planted
from withstand.testing.planted._attacks import climbed
from withstand.threat import Linf, Threat

EPS = 0.1
# Catastrophic overfitting needs a large radius, and shows at the one that was trained for.
FAR = {"fgsm_overfit": 0.3}
IN_FRONT = [defect for defect in PLANTED if defect.kind != "attack"]
# The others take ten seconds and more each: they train, encode pictures or answer at random.
LONG = {
    "jpeg", "fgsm_overfit", "kwta", "distilled", "random_resize", "batch_norm_training",
    "thermometer", "zero_gradient",
}  # fmt: skip
QUICK = [defect for defect in IN_FRONT if defect.name not in LONG]
ATTACKS = [defect for defect in PLANTED if defect.kind == "attack"]


def by_name(defect: Planted) -> str:
    return defect.name


def planted(defect: Planted, sound: Any) -> nn.Module:
    given = (sound.net, sound.x, sound.y) if defect.needs_data else (sound.net,)
    found: nn.Module = defect.plant(*given)
    return found


def fired(defect: Planted, sound: Any, preset: Any, batch_size: int = 64) -> dict[str, float]:
    """Checks that did not come out green, with their values; an error's text stands for its own."""
    model = TorchModel(planted(defect, sound))
    try:
        threat = Threat(region=Linf(FAR.get(defect.name, EPS)))
        data = sound.unseen.head(200)
        report = evaluate(model, data, threat, preset=preset, batch_size=batch_size)
    except WithstandError as error:
        return {name: 1.0 for name in defect.checks if name in str(error)}
    return {f.check: f.value for f in report.trust.findings if f.verdict != "green"}


@pytest.mark.parametrize("defect", QUICK, ids=by_name)
def test_a_defect_is_noticed_by_its_check(defect: Planted, sound: Callable[..., Any]) -> None:
    found = fired(defect, sound(), "smoke", batch_size=200)
    assert found.keys() & set(defect.checks), found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("data", ["digits", "mnist"])
@pytest.mark.parametrize("defect", IN_FRONT, ids=by_name)
def test_a_defect_is_noticed_on_both_data_sets(
    defect: Planted, data: str, sound: Callable[..., Any]
) -> None:
    found = fired(defect, sound(data), "standard")
    assert found.keys() & set(defect.checks), found


@pytest.mark.parametrize("defect", ATTACKS, ids=by_name)
def test_a_defective_attack_is_noticed(defect: Planted, sound: Callable[..., Any]) -> None:
    base = sound()
    trust = diagnose_attack(
        defect.plant(EPS),
        TorchModel(base.net),
        base.unseen.head(200),
        Threat(region=Linf(EPS)),
        batch_size=200,
    )
    found = {f.check: f.value for f in trust.findings if f.verdict != "green"}
    assert found.keys() & set(defect.checks), found


def test_a_sound_attack_is_not_suspected(sound: Callable[..., Any]) -> None:
    base = sound()

    def pgd(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        best = x.clone()
        for steps in (10, 20, 40):
            found = climbed(net, x, y, eps=EPS, size=EPS / 8, steps=steps)
            with torch.no_grad():
                hit = net(found).argmax(1) != y
            best[hit] = found[hit]
        return best

    data, threat = base.unseen.head(200), Threat(region=Linf(EPS))
    trust = diagnose_attack(pgd, TorchModel(base.net), data, threat, batch_size=200)
    assert [f for f in trust.findings if f.verdict != "green"] == []
