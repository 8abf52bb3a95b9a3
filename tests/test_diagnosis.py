"""The diagnosis: limits, pairing, what it costs, and attacks of others."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from withstand import WithstandError, attacks
from withstand.evaluate import evaluate
from withstand.evaluate._found import Found
from withstand.evaluate._probe import Probe
from withstand.evaluate._report import Cost, Stage
from withstand.evaluate.diagnosis import (
    CHECKS,
    Case,
    HandedIn,
    Purse,
    diagnose_attack,
    handed_in,
    judge,
    traced,
)
from withstand.evaluate.diagnosis._trace import Path as Way
from withstand.models import Detecting, FunctionModel, Randomized, TorchModel
from withstand.stats import mcnemar
from withstand.testing.planted import last_iterate, wrong_sign
from withstand.threat import L0, L2, Linf, Threat

EPS = 0.1
THREAT = Threat(region=Linf(EPS))
NAMED = {check.name: check for check in CHECKS}


def case(model: Any, **changes: Any) -> Case:
    """A case of 100 samples of which all are right and none was fooled."""
    x, y = torch.rand(100, 4), torch.zeros(100, dtype=torch.long)
    right = torch.ones(100, dtype=torch.bool)
    given: dict[str, Any] = {
        "model": model, "handed_in": HandedIn(), "probabilities": False, "threat": THREAT,
        "access": "gradients", "classes": 10, "x": x, "y": y, "clean": torch.zeros(100, 10),
        "correct": right, "eps": torch.full((100,), EPS), "span": 1.0,
        "found": Found.nothing(x, y, right), "stages": (), "surrogates": (),
        "probe": Probe(samples=64, zero_gradients=0.0, saturated=0.0, restless=False),
        "missed": None, "trace": None, "doubled": None, "again": None, "swept": False, "seed": 0,
        "batch": 64, "purse": Purse(left=0),
    }  # fmt: skip
    return Case(**{**given, **changes})


def stage(name: str, fooled: int, source: str = "", **settings: object) -> Stage:
    return Stage(
        name=name, settings=settings, access="gradients", samples=100, fooled=fooled, cost=Cost(),
        note="", source=source,
    )  # fmt: skip


def verdict(name: str, given: Case) -> str | None:
    found = NAMED[name].find(given)
    return None if found is None else found.verdict


def test_checks_are_told_apart_and_their_limits_are_in_order() -> None:
    assert len(NAMED) == len(CHECKS) >= 33
    for check in CHECKS:
        assert check.amber <= check.red
        assert all((check.meaning, check.fix, check.source))
        assert isfinite(check.amber) or check.name == "lost in 8 bit"


def test_the_reference_lists_every_check() -> None:
    page = Path(__file__).parents[1] / "docs/reference/checks.md"
    rows = [
        f"| {c.name} | {c.when} | {c.amber:g} | {c.red:g} | {c.meaning} | {c.fix} | {c.source} |"
        for c in CHECKS
    ]
    assert [line for line in page.read_text().splitlines() if line in rows] == rows


@pytest.mark.parametrize(
    ("queries", "fresh", "told"),
    [(0, 0, "green"), (1, 0, "green"), (4, 0, "green"), (5, 0, "red"), (5, 5, "green"),
     (30, 5, "red"), (30, 60, "green")],
)  # fmt: skip
def test_a_black_box_must_find_more_than_fresh_gradients_do(
    queries: int, fresh: int, told: str, digits: Any
) -> None:
    given = case(digits.model, stages=(stage("Square", queries),), again=fresh)
    assert verdict("black box beats gradients", given) == told
    (shown,) = (stage("APGD", queries, source="twin"),)
    other = case(digits.model, stages=(shown,), surrogates=(object(),), again=fresh)
    assert verdict("transfer beats gradients", other) == told
    assert verdict("transfer beats gradients", given) is None


def test_mcnemar_is_the_binomial_tail() -> None:
    assert mcnemar(0, 0) == mcnemar(0, 7) == 1
    assert mcnemar(5, 0) == 1 / 32
    assert mcnemar(2, 1) == 0.5
    assert mcnemar(8, 2) == pytest.approx(56 / 1024)


@pytest.mark.parametrize(
    ("name", "stages", "value"),
    [
        ("loss dependence", (stage("APGD", 3, loss="ce"), stage("APGD", 6, loss="pma")), 0.06),
        ("targets help", (stage("APGDT", 4),), 0.04),
        ("single step beats iterations", (stage("FGSM", 2),), 0.02),
        ("random noise fools", (stage("RandomNoise", 51),), 0.51),
    ],
)
def test_shares_are_of_the_right_answers(
    name: str, stages: tuple[Stage, ...], value: float, digits: Any
) -> None:
    found = NAMED[name].find(case(digits.model, stages=stages))
    assert found is not None
    assert found.value == value
    assert found.verdict != "green"
    assert NAMED[name].find(case(digits.model)) is None


def test_who_is_never_fooled_at_any_size_is_suspicious(digits: Any) -> None:
    given = case(digits.model, swept=True)
    assert verdict("never fooled", given) == "red"
    assert verdict("implausible robustness", given) == "amber"
    given.found.distance[:] = 0.3
    assert verdict("never fooled", given) == verdict("implausible robustness", given) == "green"
    assert verdict("never fooled", case(digits.model)) is None


def test_a_curve_that_stops_falling_is_a_plateau(digits: Any) -> None:
    given = case(digits.model, swept=True)
    given.found.distance[:10] = 0.5 * EPS
    assert verdict("curve plateau", given) == "amber"
    given.found.distance[10:20] = 1.5 * EPS
    assert verdict("curve plateau", given) == "green"


def test_examples_outside_are_counted(digits: Any) -> None:
    given = case(digits.model)
    given.found.by[:4] = 0
    given.found.x_adv[:4] = given.x[:4] + torch.tensor([0.05, 0.05, 0.05, 0.2])[:, None]
    found = NAMED["outside the region"].find(given)
    assert found is not None
    assert (found.value, found.verdict) == (0.25, "red")


def test_a_path_that_still_rises_has_not_converged() -> None:
    rising = Way(loss=[float(i) for i in range(50)], reach=[0.5] * 50, turn=[1.0, -1.0] * 25)
    assert rising.unconverged
    assert rising.inside
    assert rising.steadiness == pytest.approx(0, abs=0.05)
    settled = Way(loss=[min(i, 20.0) for i in range(50)], reach=[0.2, 1.0], turn=[0.9])
    assert not settled.unconverged
    assert not settled.inside
    assert not Way(loss=[1.0] * 50).unconverged


def test_a_trace_changes_nothing(digits: Any) -> None:
    attack = attacks.APGD(steps=20, loss="pma")
    watched, trace = traced(attack)
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    threat = Threat(region=Linf(0.03))
    plain, seen = (attacks.run(a, digits.model, x, y, threat) for a in (attack, watched))
    assert torch.equal(plain.x_adv, seen.x_adv)
    paths = list(trace.paths)
    assert len(paths) >= int((~plain.success).sum())
    assert all(len(path.loss) <= 21 and max(path.reach) < 1.001 for path in paths)


def test_draws_that_belong_to_a_batch_are_no_dependence_on_it() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0)

    purse = Purse(left=10_000)
    assert verdict("batch dependence", case(TorchModel(Centred()), purse=purse)) == "amber"
    averaged = Randomized(TorchModel(Noisy()), draws=2)
    assert verdict("batch dependence", case(averaged, purse=purse)) is None


def test_training_mode_and_side_effects_are_seen_and_put_back() -> None:
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x, state = torch.rand(8, 4), torch.random.get_rng_state()
    told = handed_in(TorchModel(net), x)
    assert told.training == ("0", "1")
    assert told.changed == ()
    assert net.training
    assert net[0].training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert handed_in(TorchModel(net.eval()), torch.rand(8, 4)).training == ()

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x

    counting = Counting()
    assert handed_in(TorchModel(counting), torch.rand(2, 4)).changed == ("calls",)
    assert int(counting.calls) == 0


def test_a_detector_beside_the_model_must_be_in_the_goal(digits: Any) -> None:
    beside = Detecting(digits.model, lambda x: x.flatten(1).mean(1), threshold=0.5)
    assert verdict("detector left out", case(beside)) == "red"
    assert verdict("detector left out", case(digits.model)) is None


class Optimising(nn.Module):
    """Cleans its input by a step of its own."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(inner.square().sum(), inner)
        return x - 0.1 * slope


def test_a_forward_that_differentiates_is_noticed() -> None:
    given = case(TorchModel(Optimising()), purse=Purse(left=100))
    found = NAMED["optimisation inside"].find(given)
    assert found is not None
    assert (found.value, found.verdict) == (1, "amber")


def test_a_black_box_is_not_asked_by_the_diagnosis(digits: Any) -> None:
    asked = 0

    def scores(x: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(x)
        return digits.model.scores(torch.from_numpy(x)).numpy()

    model = FunctionModel(scores, domain=(0, 1))
    report = evaluate(
        model, digits.data, Threat(region=Linf(EPS), access="scores", queries=60), preset="smoke"
    )
    assert report.trust.cost.forwards == 0
    assert report.samples.forwards.max() <= 60
    assert report.cost.forwards == asked


def test_what_the_diagnosis_spends_is_capped(digits: Any) -> None:
    given = case(digits.model, purse=Purse(left=0))
    trust = judge(given)
    assert trust.cost.forwards == trust.cost.backwards == 0
    assert "gradient fidelity" not in {finding.check for finding in trust.findings}


def sound(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD that keeps the best point."""
    best, point = x.clone(), x.clone()
    for _ in range(30):
        point = point.detach().requires_grad_()
        scores = net(point)
        loss = nn.functional.cross_entropy(scores, y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, point)
        wrong = (scores.argmax(1) != y)[:, None, None, None]
        best = torch.where(wrong, point.detach(), best)
        ahead = point.detach() + EPS / 8 * slope.sign()
        point = torch.min(torch.max(ahead, x - EPS), x + EPS).clamp(0, 1)
    return best


@pytest.mark.parametrize(
    ("attack", "check"),
    [
        (wrong_sign(EPS), "single step beats the attack"),
        (wrong_sign(EPS), "objective falls"),
        (last_iterate(EPS), "discarded successes"),
        (lambda net, x, y: x, "reference beats the attack"),
        (lambda net, x, y: x + 0.5, "outside the region"),
    ],
)
def test_defective_attacks_are_named(attack: Any, check: str, digits: Any) -> None:
    trust = diagnose_attack(attack, digits.model, digits.data, THREAT, batch_size=16)
    found = {finding.check: finding for finding in trust.findings}
    assert found[check].verdict == "red"


def test_a_sound_attack_of_another_is_green(digits: Any) -> None:
    trust = diagnose_attack(sound, digits.model, digits.data, THREAT, batch_size=16)
    assert trust.verdict == "green", trust.findings


def test_attacks_of_others_need_a_network_and_a_norm(digits: Any) -> None:
    with pytest.raises(WithstandError, match="give a TorchModel"):
        diagnose_attack(sound, FunctionModel(digits.model.scores), digits.data, THREAT)
    with pytest.raises(WithstandError, match="linf and l2"):
        diagnose_attack(sound, digits.model, digits.data, Threat(region=L0(3)))
    with pytest.raises(WithstandError, match="for inputs of shape"):
        diagnose_attack(lambda net, x, y: y, digits.model, digits.data, Threat(region=L2(1.0)))


class _Coarse(nn.Module):
    """Four features, rounded on their way into the only layer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer = how, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                return self.layer(x).float()
        if self.how == "method":
            return self.layer(x.bfloat16().float())
        return self.layer(x.to(torch.float16).float()) if self.how == "to" else self.layer(x)


@pytest.mark.parametrize("how", ["autocast", "method", "to", "never"])
def test_a_coarse_type_of_the_input_is_noticed_however_it_comes_about(how: str) -> None:
    seen = case(TorchModel(_Coarse(how).eval()), purse=Purse(left=1000))
    found = NAMED["input precision"].find(seen)
    assert found is not None
    assert (found.value == 0.0) == (how == "never"), found
