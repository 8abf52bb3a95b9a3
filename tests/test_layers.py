"""What each layer of a defended system adds."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import withstand
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from withstand import evaluate as room
from withstand._errors import ModelError, ThreatError
from withstand.data import load_sklearn
from withstand.evaluate import Layer, Layers, evaluate, evaluate_layers, show_layers
from withstand.evaluate._cascade import PRESETS
from withstand.evaluate._layers import _surrogates
from withstand.evaluate._masking import Trial
from withstand.models import (
    Defended,
    Detecting,
    Differentiable,
    Ensemble,
    Pipeline,
    Randomized,
    TorchModel,
)
from withstand.stats import Interval
from withstand.testing import planted
from withstand.threat import L0, Evading, Linf, Threat, Untargeted

THREAT = Threat(region=Linf(0.1))
INK = 0.2


def blurred(x: Tensor) -> Tensor:
    return (x + avg_pool2d(x, 3, 1, 1, count_include_pad=False)) / 2


def ink_beside(x: Tensor) -> Tensor:
    """Ink in the outer columns, where digits have none, and attacks put some for no good reason."""
    return x[..., [0, -1]].flatten(1).sum(1)


def shaken(x: Tensor) -> Tensor:
    return x + 0.3 * torch.rand_like(x)


ROUNDED = planted.quantiser(nn.Identity())
ZERO_GRADIENT = planted.zero_gradient(nn.Identity())
MASKING = {
    "zero gradient": ZERO_GRADIENT,
    "quantiser": ROUNDED,
    "thermometer": planted.thermometer(nn.Identity()),
    "jpeg": planted.jpeg(nn.Identity(), quality=95),
}
SOUND: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "blur": blurred,
    "seen through": Differentiable(ROUNDED),
}


@pytest.fixture(scope="module")
def other(digits: Any) -> TorchModel:
    """The same network with other weights, and nearly the same answers."""
    moved = deepcopy(digits.net)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in moved.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn_like(parameter))
    return TorchModel(moved)


@pytest.fixture(scope="module")
def trial(digits: Any) -> Trial:
    return Trial(data=digits.data, threat=THREAT, spend=PRESETS["smoke"], seed=0, batch=64)


@pytest.fixture(scope="module")
def guarded(digits: Any) -> Defended:
    return Defended(members=digits.model, detector=ink_beside, threshold=INK)


@pytest.fixture(scope="module")
def detected(digits: Any, guarded: Defended) -> Layers:
    return evaluate_layers(guarded, digits.data, THREAT, preset="smoke")


@pytest.fixture(scope="module")
def masked(digits: Any) -> Layers:
    system = Defended(members=digits.model, transforms={"[bold]front": ZERO_GRADIENT})
    return evaluate_layers(system, digits.data, THREAT, preset="smoke")


def test_the_whole_is_the_composition_by_hand(digits: Any, other: TorchModel) -> None:
    system = Defended(
        members={"first": digits.model, "second": other},
        transforms={"rounding": Differentiable(ROUNDED), "blur": blurred},
        detector=ink_beside,
        threshold=INK,
        combine="logits",
        plain=digits.model,
    )
    several = Ensemble([digits.model, other], combine="logits")
    behind = Pipeline([Differentiable(ROUNDED), blurred], several)
    by_hand = Detecting(behind, ink_beside, threshold=INK)
    x = torch.from_numpy(digits.data.x[:9])
    assert torch.equal(system.model.scores(x), by_hand.scores(x))
    assert torch.equal(system.model.labels(x), by_hand.labels(x))
    goal, y = Evading(Untargeted()), torch.from_numpy(digits.data.y[:9])
    slopes = [m.gradient(x, lambda s: goal.margin(s, y)) for m in (system.model, by_hand)]
    assert slopes[0].gradient.abs().sum() > 0
    assert torch.equal(slopes[0].gradient, slopes[1].gradient)


def test_a_layer_is_removed_and_all_else_stays(digits: Any, other: TorchModel) -> None:
    plain = TorchModel(nn.Sequential(digits.net))
    system = Defended(
        members={"first": digits.model, "second": other},
        transforms={"rounding": ROUNDED, "blur": blurred},
        detector=ink_beside,
        threshold=INK,
        plain=plain,
    )
    assert list(system.layers.items()) == [
        ("rounding", "transform"),
        ("blur", "transform"),
        ("first", "member"),
        ("second", "member"),
        ("hardening", "hardening"),
        ("detector", "detector"),
    ]
    left = {name: list(system.without(name).layers) for name in system.layers}
    assert left["rounding"] == ["blur", "first", "second", "hardening", "detector"]
    assert left["first"] == ["rounding", "blur", "hardening", "detector"]
    assert left["hardening"] == ["rounding", "blur", "detector"]
    assert left["detector"] == ["rounding", "blur", "first", "second", "hardening"]
    assert system.without("first").without("blur").without("rounding").bare.model is other
    assert system.bare.without("hardening").model is plain
    assert list(system.only("blur").layers) == ["blur", "first", "second", "hardening"]
    assert list(system.only("detector").layers) == ["first", "second", "hardening", "detector"]
    with pytest.raises(ModelError, match="no layer 'blurr', did you mean 'blur'"):
        system.without("blurr")


def test_systems_that_make_no_sense_are_refused(digits: Any, guarded: Defended) -> None:
    model = digits.model
    with pytest.raises(ModelError, match="a detector and no threshold"):
        Defended(members=model, detector=ink_beside)
    with pytest.raises(ModelError, match="a threshold and no detector"):
        Defended(members=model, threshold=1.0)
    with pytest.raises(ModelError, match="two layers are named detector"):
        replace(guarded, transforms={"detector": blurred})
    with pytest.raises(ModelError, match="a system of 0 members"):
        Defended(members={})
    with pytest.raises(ModelError, match="0 layers to remove; give transforms, a detector"):
        evaluate_layers(Defended(members=model), digits.data, THREAT)
    blur = Defended(members=model, transforms={"blur": blurred})
    with pytest.raises(ThreatError, match="the system has no detector"):
        evaluate_layers(blur, digits.data, replace(THREAT, goal=Evading(Untargeted())))


def test_what_cannot_be_left_out_is_named(digits: Any) -> None:
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    net(torch.zeros(1, 1, 4, 4))
    with torch.no_grad():
        shrunk = avg_pool2d(torch.from_numpy(digits.data.x), 2)
        data = replace(digits.data, y=net(shrunk).argmax(1).numpy())
    system = Defended(
        members=TorchModel(net), transforms={"shrink": lambda x: avg_pool2d(x, 2), "blur": blurred}
    )
    with pytest.raises(ModelError, match=r"^without shrink: .* belongs into the member"):
        evaluate_layers(system, data.head(20), THREAT, preset="smoke")


def test_random_layers_are_averaged_where_asked(digits: Any) -> None:
    x = torch.from_numpy(digits.data.x[:9])
    system = Defended(members=digits.model, transforms={"noise": shaken})
    assert not torch.equal(system.model.scores(x), system.model.scores(x))
    steady = replace(system, draws=3)
    assert isinstance(steady.model, Randomized)
    assert torch.equal(steady.model.scores(x), steady.model.scores(x))
    assert not isinstance(steady.model.model, TorchModel)


@pytest.mark.parametrize("front", MASKING)
def test_a_layer_that_hides_the_gradient_masks(front: str, digits: Any, trial: Trial) -> None:
    system = Defended(members=digits.model, transforms={front: MASKING[front]})
    assert trial.of(system.only(front), front)[1] is True
    # A gradient that is cut shows in few samples, whoever is fooled.
    few = replace(trial, data=digits.data.head(8))
    assert few.of(system.only(front), front)[1] is True


@pytest.mark.parametrize("front", SOUND)
def test_a_layer_with_a_gradient_does_not(front: str, digits: Any, trial: Trial) -> None:
    system = Defended(members=digits.model, transforms={front: SOUND[front]})
    assert trial.of(system.only(front), front)[1] is False


def test_behind_one_that_masks_the_other_is_seen(digits: Any, trial: Trial) -> None:
    system = Defended(members=digits.model, transforms={"rounding": ROUNDED, "zero": ZERO_GRADIENT})
    assert trial.of(system.only("rounding"), "rounding")[1] is True
    assert trial.of(system.only("zero"), "zero")[1] is True
    # In the whole the other one hides it, which is why it is tried alone.
    assert trial.of(system, "rounding")[1] is False


def test_members_and_hardening_are_tried_too(digits: Any, other: TorchModel, trial: Trial) -> None:
    several = Defended(members={"first": digits.model, "second": other})
    assert [trial.of(several, name)[1] for name in several.layers] == [False, False]
    blind = TorchModel(planted.zero_gradient(digits.net))
    assert trial.of(Defended(members=blind, plain=digits.model), "hardening")[1] is True


def test_a_misleading_gradient_masks_too(digits: Any, trial: Trial) -> None:
    uphill = Differentiable(lambda x: x, lambda x: -x)
    system = Defended(members=digits.model, transforms={"uphill": uphill})
    assert trial.of(system, "uphill")[1] is True


def test_the_share_that_is_stopped_is_counted(digits: Any, trial: Trial) -> None:
    def all_of_it(x: Tensor) -> Tensor:
        return torch.ones_like(x[:, 0, 0, 0])

    flags = Defended(members=digits.model, detector=all_of_it, threshold=0.5)
    lets = replace(flags, threshold=1.0)
    stopped, passed = (trial.of(system, "detector")[0] for system in (flags, lets))
    assert stopped is not None
    assert passed is not None
    assert (stopped.value, passed.value) == (1.0, 0.0)
    assert stopped.n == passed.n > 10


def test_without_gradients_nothing_is_said(digits: Any, guarded: Defended, trial: Trial) -> None:
    asked = replace(trial, threat=replace(THREAT, access="scores"))
    assert asked.of(guarded, "detector") == (None, None)
    sparse = replace(trial, threat=Threat(region=L0(3)))
    assert sparse.of(guarded, "detector") == (None, None)


def test_the_attacker_knows_the_system_without_each_layer(digits: Any, guarded: Defended) -> None:
    parts = {name: guarded.without(name) for name in guarded.layers}
    assert list(_surrogates(guarded, parts, THREAT)) == ["without detector"]
    more = replace(guarded, transforms={"blur": blurred})
    parts = {name: more.without(name) for name in more.layers}
    found = _surrogates(more, parts, THREAT)
    assert list(found) == ["without blur", "without detector", "the members alone"]
    x = torch.from_numpy(digits.data.x[:3])
    assert {model.scores(x).shape for model in found.values()} == {(3, 11)}
    assert torch.equal(found["the members alone"].scores(x)[:, :-1], digits.model.scores(x))
    assert _surrogates(more, parts, replace(THREAT, access="labels")) == {}
    assert _surrogates(more, parts, Threat(region=L0(3))) == {}


def test_a_detector_stops_who_does_not_know_of_it(digits: Any, detected: Layers) -> None:
    (layer,) = detected.layers
    assert layer.kind == "detector"
    assert layer.stopped is not None
    assert layer.stopped.value > 0.8
    assert layer.masks is False
    # Most of those whom the plain attack fools are fooled, unseen, by one who knows.
    whole, without = detected.whole, detected.without["detector"]
    fooled = [np.array(r.samples.status) == "fooled" for r in (whole, without)]
    assert (fooled[0] & fooled[1]).sum() > 0.5 * fooled[1].sum()
    assert layer.robust.value < 0.5 * layer.stopped.value * without.fooling_rate.value
    made = torch.from_numpy(whole.x_adv[fooled[0]])
    assert bool((ink_beside(made) <= INK).all())
    assert whole.threat["goal"] == "any wrong class, unseen by the detector"
    assert without.threat["goal"] == "any wrong class"


def test_a_detectors_price_is_counted_by_hand(digits: Any, detected: Layers) -> None:
    (layer,) = detected.layers
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    right, flagged = digits.model.labels(x) == y, ink_beside(x) > INK
    assert flagged.any()
    assert layer.flagged is not None
    assert layer.flagged.value == pytest.approx(float(flagged.float().mean()))
    assert detected.served.value == pytest.approx(float((right & ~flagged).float().mean()))
    assert layer.served.value == pytest.approx(float(right.float().mean()))
    assert layer.clean.value == pytest.approx(-float((right & flagged).float().mean()))
    assert f"flags {100 * layer.flagged.value:.1f} % of clean inputs" in layer.statement


def test_a_layer_that_only_masks_is_named(masked: Layers) -> None:
    (layer,) = masked.layers
    assert layer.verdict == "masks"
    assert "front only masks: it hides the gradient" in layer.statement
    assert {stage.source for stage in masked.whole.attacks} == {"", "without [bold]front"}
    checks = {f.check: f.verdict for f in masked.whole.trust.findings}
    assert checks["zero gradients"] == "red"
    assert "The trust in the whole's robust accuracy is red" in masked.notes[0]
    without = {f.check: f.verdict for f in masked.without["[bold]front"].trust.findings}
    assert without["zero gradients"] == "green"


@pytest.mark.slow
def test_a_member_is_left_out(
    digits: Any, other: TorchModel, without_seconds: Callable[[Any], Any]
) -> None:
    data = digits.data.head(20)
    system = Defended(members={"first": digits.model, "second": other})
    found = evaluate_layers(system, data, THREAT, preset="smoke")
    alone = evaluate(other, data, THREAT, preset="smoke")
    assert without_seconds(found.without["first"].to_dict()) == without_seconds(alone.to_dict())
    named = {"without first": other, "without second": digits.model}
    by_hand = Ensemble([digits.model, other])
    whole = evaluate(by_hand, data, THREAT, preset="smoke", surrogates=named)
    assert without_seconds(found.whole.to_dict()) == without_seconds(whole.to_dict())
    robust = [np.isin(r.samples.status, ("withstood",)) for r in (found.whole, alone)]
    gain = robust[0].mean() - robust[1].mean()
    assert found.layers[0].robust.value == pytest.approx(float(gain))
    assert [layer.kind for layer in found.layers] == ["member", "member"]


def test_examples_made_without_a_layer_count_in_the_worst_case(
    digits: Any, other: TorchModel
) -> None:
    # Voters give away no gradient; those who know the members need none.
    system = Defended(members={"first": digits.model, "second": other}, combine="vote")
    found = evaluate_layers(system, digits.data.head(20), Threat(region=Linf(0.2)), preset="smoke")
    assert found.whole.threat["access"] == "gradients"
    told = [stage for stage in found.whole.attacks if stage.fooled]
    by_members = [s.fooled for s in told if s.source or s.name.startswith("adaptive")]
    assert sum(by_members) > 0.5 * found.whole.fooling_rate.n
    assert {layer.masks for layer in found.layers} == {None}


@pytest.mark.slow
def test_random_answers_are_noted(digits: Any) -> None:
    told: list[str] = []
    system = Defended(members=digits.model, transforms={"noise": shaken})
    found = evaluate_layers(
        system,
        digits.data.head(20),
        THREAT,
        preset="smoke",
        progress=lambda now: told.append(now.stage),
    )
    assert "Give the system draws" in found.notes[-1]
    assert {name.split(":")[0] for name in told} == {"all layers", "without noise"}


def a_layer(robust: tuple[float, float, float], **more: Any) -> Layer:
    value, low, high = robust
    zero = Interval(value=0.0, low=-0.02, high=0.02, n=100)
    gain = Interval(value=value, low=low, high=high, n=100)
    return replace(
        Layer(name="front", kind="transform", served=zero, clean=zero, robust=gain), **more
    )


def test_words_follow_the_interval() -> None:
    adds = a_layer((0.1, 0.02, 0.18))
    assert adds.verdict == "adds"
    assert adds.statement == "front adds 10.0 points [2.0, 18.0] of robust accuracy."
    nothing = a_layer((0.1, -0.02, 0.22))
    assert nothing.verdict == "adds nothing"
    assert "adds nothing that 100 samples can show (10.0 points [-2.0, 22.0]" in nothing.statement
    harms = a_layer((-0.1, -0.18, -0.02))
    assert harms.verdict == "harms"
    assert "takes 10.0 points [2.0, 18.0]" in harms.statement
    assert "only masks" in a_layer((0.1, -0.02, 0.22), masks=True).statement
    seeming = a_layer((0.1, 0.02, 0.18), masks=True)
    assert seeming.verdict == "masks"
    assert "seems to add may be the attack's failure" in seeming.statement
    dear = a_layer((0.1, 0.02, 0.18), clean=a_layer((-0.1, -0.18, -0.02)).robust)
    assert "costs 10.0 points [2.0, 18.0] of clean accuracy" in dear.statement


def test_the_table_and_the_json_tell_the_same(detected: Layers, masked: Layers) -> None:
    for found in (detected, masked):
        output = io.StringIO()
        show_layers(found, Console(file=output, width=400))
        text = output.getvalue()
        values = json.loads(found.to_json())
        assert values["schema"] == "urn:withstand:layers:1"
        assert set(values["without"]) == {layer["name"] for layer in values["layers"]}
        for layer in values["layers"]:
            assert layer["statement"] in text
            assert f"without {layer['name']}" in text
        assert str(found.whole.robust_accuracy) in text


def test_what_the_room_offers_is_sorted() -> None:
    constants = [name for name in room.__all__ if name.isupper()]
    names = sorted(constants) + sorted(set(room.__all__) - set(constants))
    assert room.__all__ == names
    assert all(hasattr(room, name) for name in names)


MODEL = """
import torch


def build():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    net.load_state_dict(torch.load("net.pt", weights_only=True))
    return net
"""
CONFIG = """
model: {kind: torch, factory: "model.py:build", domain: [0, 1]}
data: {kind: npz, path: data.npz}
threat: {region: {norm: linf, eps: 0.05}}
evaluate: {preset: smoke, seconds: 60}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    train = load_sklearn("digits")
    x, y = torch.from_numpy(train.x[:1200]), torch.from_numpy(train.y[:1200])
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    (tmp_path / "model.py").write_text(MODEL)
    last = {"x": train.x[1700:1720], "y": train.y[1700:1720]}
    np.savez(tmp_path / "data.npz", **last, x_train=train.x[:1200], y_train=train.y[:1200])
    return tmp_path


def test_the_command_takes_off_the_files_defences_and_its_detector(project: Path) -> None:
    path = project / "withstand.yaml"
    path.write_text(CONFIG)
    none = withstand("evaluate", "--layers", folder=project)
    assert (none.returncode, "there are 0 layers to take off" in none.stderr) == (2, True)
    assert not (project / "withstand-report").exists()
    path.write_text(
        CONFIG + "defences: [{name: bit_depth, bits: 3}]\ndetect: {methods: [confidence]}\n"
    )
    unfitted = withstand("evaluate", "--layers", folder=project)
    assert unfitted.returncode == 2, unfitted.stderr
    assert unfitted.stderr.count("\n") == 1
    assert withstand("detect", "fit", folder=project).returncode == 0
    done = withstand("evaluate", "--layers", folder=project)
    assert done.returncode == 0, done.stderr
    assert "without detector" in done.stdout
    told = json.loads((project / "withstand-report" / "layers.json").read_text())
    assert [layer["kind"] for layer in told["layers"]] == ["transform", "detector"]
    assert told["whole"]["threat"]["goal"] != told["without"]["detector"]["threat"]["goal"]
    path.write_text(path.read_text().replace("preset: smoke", "preset: smoke, corpus: kept"))
    idle = withstand("evaluate", "--layers", folder=project)
    assert (idle.returncode, "no use for evaluate.corpus" in idle.stderr) == (2, True)
