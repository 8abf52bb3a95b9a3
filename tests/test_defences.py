"""Defences that tell how they are attacked, and evaluations that do it unasked."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from withstand import WithstandError
from withstand.attacks import Checkpoint
from withstand.config import parse_config
from withstand.evaluate import (
    Report,
    evaluate,
    evaluate_layers,
    from_config,
    load_report,
    page,
    report_schema,
    show,
)
from withstand.models import (
    Adaptive,
    BitDepth,
    Blur,
    Declared,
    Defence,
    Defended,
    Detecting,
    Ensemble,
    InputTransform,
    Jpeg,
    Median,
    Physical,
    Pipeline,
    Randomized,
    ResizeAndPad,
    Smoothed,
    Tempered,
    TorchModel,
    TotalVariation,
    defences_of,
    distilled,
    inference_cost,
    input_transform,
    measured_defences,
    seen_through,
    with_defences,
)
from withstand.models._input_transform import TRANSFORMS
from withstand.testing import planted
from withstand.threat import Budget, Linf, Threat

THREAT = Threat(region=Linf(0.1))
# Settings that leave digits of 8 x 8 pixels to be read.
MILD: dict[str, dict[str, Any]] = {
    "bit_depth": {"bits": 4},
    "jpeg": {"quality": 90},
    "median": {"size": 3},
    "noise": {"sigma": 0.05, "draws": 3},
    "resize_and_pad": {"smallest": 0.9, "draws": 3},
    "total_variation": {"weight": 0.02, "steps": 10},
}
SHAPES = {
    "grey": (2, 1, 9, 11),
    "colour": (2, 3, 9, 11),
    "spectral": (2, 5, 9, 11),
    "signal": (2, 2, 24),
    "table": (2, 7),
}
FITTING = {
    "bit_depth": tuple(SHAPES),
    "jpeg": ("grey", "colour", "spectral"),
    "median": ("grey", "colour", "spectral", "signal"),
    "noise": tuple(SHAPES),
    "resize_and_pad": ("grey", "colour", "spectral", "signal"),
    "total_variation": ("grey", "colour", "spectral", "signal"),
}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def inputs(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def bare(digits: Any) -> Report:
    return evaluate(digits.model, digits.data.head(24), THREAT, preset="smoke")


@pytest.fixture(scope="module")
def rounded(digits: Any) -> Report:
    model = behind(digits.model, "bit_depth")
    return evaluate(model, digits.data.head(24), THREAT, preset="smoke")


def behind(model: TorchModel, name: str) -> Any:
    return Defended(members=model, transforms={name: input_transform(name, MILD[name])}).model


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_keeps_the_shape_or_says_what_it_needs(name: str, shape: str) -> None:
    x = inputs(*SHAPES[shape])
    step = input_transform(name, MILD[name])
    if shape not in FITTING[name]:
        with pytest.raises(WithstandError, match=r"the input has \(2, ") as caught:
            step(x)
        assert "\n" not in str(caught.value)
        return
    before = x.clone()
    torch.manual_seed(1)
    out = step(x)
    assert out.shape == x.shape
    assert torch.equal(x, before)
    assert not torch.equal(out, x)
    assert 0 <= float(out.min()) <= float(out.max()) <= 1


@pytest.mark.parametrize("name", TRANSFORMS)
def test_seen_through_it_answers_the_same_and_has_a_gradient(name: str, digits: Any) -> None:
    model = behind(digits.model, name)
    seen = seen_through(model)
    x = torch.from_numpy(digits.data.x[:6])
    assert torch.equal(model.scores(x), seen.scores(x))
    slopes = [float(m.gradient(x, lambda s: s[:, 0]).gradient.abs().sum()) for m in (model, seen)]
    assert slopes[1] > 0
    (declared,) = defences_of(model)
    assert (slopes[0] == 0) == declared.masks
    assert all(threat.access == "none" for threat in declared.threats)
    random = name in ("noise", "resize_and_pad")
    assert isinstance(seen, Randomized) == random
    assert (declared.adaptive.draws == 3) == random


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_domain_is_only_a_unit(name: str) -> None:
    x = inputs(2, 1, 12, 12)
    unit = input_transform(name, MILD[name])
    bytes_ = input_transform(name, MILD[name], domain=(-128.0, 127.0))
    seen = []
    for step, given in ((unit, x), (bytes_, 255 * x - 128)):
        torch.manual_seed(0)
        seen.append(step(given))
    torch.testing.assert_close(255 * seen[0] - 128, seen[1], atol=2e-3, rtol=0)


def test_bit_depth_is_the_planted_quantiser() -> None:
    x = inputs(3, 1, 8, 8)
    assert torch.equal(BitDepth(bits=4)(x, rng()), planted.quantiser(nn.Identity())(x))
    assert len(BitDepth(bits=1)(x, rng()).unique()) == 2


def test_the_median_is_numpys() -> None:
    x = inputs(2, 3, 7, 8)
    around = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(2, 3))
    np.testing.assert_array_equal(Median()(x, rng()), np.median(windows, (-1, -2)))
    signal = x[:, :, 0]
    edge = np.pad(signal.numpy(), ((0, 0), (0, 0), (2, 2)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(edge, 5, axis=2)
    np.testing.assert_array_equal(Median(size=5)(signal, rng()), np.median(windows, -1))


def test_total_variation_of_a_step_is_known_in_closed_form() -> None:
    # Of two plateaus of n and m values a step apart, each moves by weight / n and weight / m
    # towards the other (Strong and Chan 2003, section 3.1).
    x = torch.cat((torch.zeros(10), torch.ones(5)))[None, None]
    out = TotalVariation(weight=0.3, steps=4000)(x, rng())[0, 0]
    wanted = torch.cat((torch.full((10,), 0.03), torch.full((5,), 0.94)))
    torch.testing.assert_close(out, wanted, atol=2e-3, rtol=0)


def test_total_variation_lowers_what_it_minimises() -> None:
    x = inputs(1, 2, 9, 9)

    def energy(u: Tensor) -> Tensor:
        down, right = u.diff(dim=2)[..., :-1], u.diff(dim=3)[:, :, :-1]
        edges = u.diff(dim=2)[..., -1].abs().sum() + u.diff(dim=3)[:, :, -1].abs().sum()
        total = (down.square() + right.square()).sqrt().sum() + edges
        return (u - x).square().sum() / (2 * 0.1) + total

    out = TotalVariation(steps=200)(x, rng())
    assert energy(out) < 0.8 * energy(x)
    for seed in range(5):
        moved = out + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        assert energy(out) < energy(moved)


def test_resize_and_pad_keeps_what_it_shows_and_pads_with_zeros() -> None:
    x = torch.ones(2, 1, 20, 20)
    seen = [ResizeAndPad(smallest=0.5)(x, np.random.default_rng(seed)) for seed in range(20)]
    sizes = {int(one[0].sum()) for one in seen}
    assert all(round(size**0.5) ** 2 == size and 100 <= size <= 400 for size in sizes)
    assert len({one.numpy().tobytes() for one in seen}) > 15
    assert torch.equal(ResizeAndPad(smallest=1.0)(x, rng()), x)


def test_jpeg_of_other_than_three_channels_is_grey_each() -> None:
    x = inputs(2, 4, 16, 16)
    apart = torch.cat([Jpeg(quality=75)(x[:, k : k + 1], rng()) for k in range(4)], 1)
    assert torch.equal(Jpeg(quality=75)(x, rng()), apart)


def test_without_being_asked_the_evaluation_goes_through_the_defence(
    digits: Any, bare: Report, rounded: Report
) -> None:
    assert bare.defences is None
    model, report = behind(digits.model, "bit_depth"), rounded
    told = report.defences
    assert told is not None
    assert told.missing == ""
    assert told.masking is True
    assert told.plain is not None
    assert told.plain.value > report.clean_accuracy.value - 0.1
    assert report.robust_accuracy.value < told.plain.value - 0.15
    names = [stage.name for stage in report.attacks]
    assert names[:3] == ["plain PGD", "adaptive PGD", "adaptive APGD"]
    assert {f.check: f.verdict for f in report.trust.findings}["zero gradients"] == "green"
    # What counts is the model that is served.
    fooled = np.asarray([status == "fooled" for status in report.samples.status])
    answers = model.scores(torch.from_numpy(report.x_adv)).argmax(1).numpy()
    assert (answers[fooled] != report.samples.label[fooled]).all()
    assert THREAT.region.contains(report.x, report.x_adv).all()
    (carried,) = told.carried
    assert carried.fits is False
    assert carried.cost_factor is not None
    assert carried.cost_factor > 0


def test_a_sound_defence_is_not_called_masking(digits: Any) -> None:
    model = behind(digits.model, "median")
    told = evaluate(model, digits.data.head(4), THREAT, preset="smoke").defences
    assert told is not None
    assert told.masking is False
    assert told.plain == told.through


def test_the_report_tells_it_in_every_form(rounded: Report, tmp_path: Path) -> None:
    report = rounded
    jsonschema.validate(json.loads(report.to_json()), report_schema())
    report.save(tmp_path)
    again = load_report(tmp_path)
    assert again.defences == report.defences
    text = io.StringIO()
    show(report, Console(file=text, width=120))
    for told in (text.getvalue(), page({"": report})):
        assert "Masking" in told
        assert "bit_depth (bits 4)" in told
        assert "straight through" in told


@pytest.mark.parametrize("why", ["access", "budget", "time"])
def test_without_the_adaptive_attack_there_is_no_claim(why: str, digits: Any) -> None:
    model = behind(digits.model, "bit_depth")
    threat = replace(THREAT, access="scores") if why == "access" else THREAT
    budget = {"budget": Budget(forwards=20), "time": Budget(seconds=1e-6)}.get(why)
    data = digits.data.head(5)
    report = evaluate(model, data, threat, preset="smoke", budget=budget)
    assert report.defences is not None
    assert report.defences.missing
    assert report.defences.masking is None
    assert report.trust.verdict != "green"
    checks = {finding.check: finding.verdict for finding in report.trust.findings}
    assert checks["not adaptively evaluated"] == "amber"
    text = io.StringIO()
    show(report, Console(file=text, width=120))
    assert "Not adaptively evaluated" in text.getvalue()
    assert "Not adaptively evaluated" in page({"": report})


def test_a_resumed_evaluation_says_the_same(
    digits: Any,
    tmp_path: Path,
    without_seconds: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = digits.data.head(5)
    declared = Defence(name="rounding", cost_factor=2.0, masks=True)
    model = Declared(TorchModel(planted.quantiser(digits.net)), declared)
    whole = evaluate(model, data, THREAT, preset="smoke")

    saves, save = iter(range(1000)), Checkpoint.save

    def stop(self: Checkpoint, changes: Any) -> None:
        save(self, changes)
        # Of some hundred steps in all, each of which is saved.
        if next(saves) == 40:
            raise KeyboardInterrupt

    file = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "due", True)
        patch.setattr(Checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, data, THREAT, preset="smoke", checkpoint=file)
    resumed = evaluate(model, data, THREAT, preset="smoke", checkpoint=file)
    assert without_seconds(resumed.to_dict()) == without_seconds(whole.to_dict())
    assert whole.defences is not None
    assert whole.defences.masking


def test_what_is_declared_must_be_defences(digits: Any) -> None:
    for given in ((), ([Defence(name="mine")],), ("jpeg",)):
        with pytest.raises(WithstandError, match="Defence"):
            Declared(digits.model, *given)  # type: ignore[arg-type]


def test_declared_attacks_run_with_their_settings(digits: Any) -> None:
    asked = Adaptive(told="by hand", attacks={"APGD": {"steps": 7, "loss": "dlr"}})
    model = Declared(digits.model, Defence(name="mine", adaptive=asked))
    report = evaluate(model, digits.data.head(3), THREAT, preset="smoke")
    stages = [stage for stage in report.attacks if stage.name == "adaptive APGD"]
    assert [(s.settings["steps"], s.settings["loss"]) for s in stages] == [(7, "dlr")]
    unknown = Declared(digits.model, Defence(name="mine", adaptive=Adaptive(attacks={"Magic": {}})))
    with pytest.raises(WithstandError, match="Magic"):
        evaluate(unknown, digits.data.head(12), THREAT, preset="smoke")


def test_a_view_that_answers_otherwise_is_refused(digits: Any) -> None:
    other = TorchModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    asked = Adaptive(view=lambda model: other)
    model = Declared(digits.model, Defence(name="mine", adaptive=asked))
    with pytest.raises(WithstandError, match=r"answers \d+ of 20 inputs otherwise"):
        evaluate(model, digits.data.head(20), THREAT, preset="smoke")


def test_distillation_is_attacked_at_its_temperature(digits: Any, bare: Report) -> None:
    hot = TorchModel(planted.scaled(digits.net, factor=1000.0))
    model = Declared(hot, distilled(1000.0))
    x = torch.from_numpy(digits.data.x[:5])
    torch.testing.assert_close(seen_through(model).scores(x), digits.model.scores(x))
    report = evaluate(model, digits.data.head(24), THREAT, preset="smoke")
    assert report.defences is not None
    assert report.defences.masking
    assert report.defences.plain is not None
    assert report.defences.plain.value > 0.6
    assert abs(report.robust_accuracy.value - bare.robust_accuracy.value) <= 0.025
    with pytest.raises(WithstandError, match="temperature is 0"):
        Tempered(hot, 0)


def test_a_vote_is_attacked_through_its_members(digits: Any, bare: Report) -> None:
    members = [digits.model, TorchModel(planted.scaled(digits.net, factor=2.0)), digits.model]
    vote = Ensemble(members, combine="vote")
    seen = seen_through(vote)
    x = torch.from_numpy(digits.data.x)
    assert torch.equal(vote.labels(x), seen.scores(x).argmax(1))
    report = evaluate(vote, digits.data.head(12), THREAT, preset="smoke")
    assert report.defences is not None
    assert [carried.name for carried in report.defences.carried] == ["vote of 3"]
    fooled = [report.samples.status, bare.samples.status[:12]]
    assert fooled[0].count("fooled") >= fooled[1].count("fooled") - 1
    assert report.defences is not None
    assert report.defences.missing == ""
    answers = vote.labels(torch.from_numpy(report.x_adv)).numpy()
    fooled = np.asarray([status == "fooled" for status in report.samples.status])
    assert (answers[fooled] != report.samples.label[fooled]).all()


def test_a_split_vote_has_the_votes_winner_ahead() -> None:
    class Says(nn.Module):
        def __init__(self, scores: list[float]) -> None:
            super().__init__()
            self.told = torch.tensor([scores])

        def forward(self, x: Tensor) -> Tensor:
            return self.told + 0 * x.sum()

    # Two are a little for 1, one is very sure of 2: the mean is for 2.
    members = [TorchModel(Says([0.0, 0.2, 0.0]))] * 2 + [TorchModel(Says([0.0, 0.0, 30.0]))]
    x = torch.zeros(1, 1)
    assert Ensemble(members).labels(x) == 2
    assert Ensemble(members, combine="vote").labels(x) == 1
    assert seen_through(Ensemble(members, combine="vote")).labels(x) == 1


@pytest.mark.parametrize("kind", ["detecting", "physical", "ensemble", "smoothed"])
def test_a_defence_is_seen_through_what_stands_before_it(kind: str, digits: Any) -> None:
    inner = behind(digits.model, "bit_depth")
    model: Any = {
        "detecting": lambda: Detecting(inner, lambda x: x.flatten(1).mean(1), threshold=0.9),
        "physical": lambda: Physical(inner, [Blur(sigma=(0.5, 0.5))], draws=2),
        "ensemble": lambda: Ensemble([inner, digits.model]),
        "smoothed": lambda: Smoothed(inner, width=0.1, draws=2),
    }[kind]()
    seen, x = seen_through(model), torch.from_numpy(digits.data.x[:4])
    assert len(defences_of(model)) == 1
    assert defences_of(seen) == ()
    assert torch.equal(model.scores(x), seen.scores(x))
    slopes = [m.gradient(x, lambda s: s[:, 0]).gradient for m in (model, seen)]
    assert not torch.allclose(slopes[0], slopes[1])


def test_what_hides_its_defences_is_not_adaptively_evaluated(digits: Any) -> None:
    hidden = Tempered(behind(digits.model, "bit_depth"), 2.0)
    report = evaluate(hidden, digits.data.head(4), THREAT, preset="smoke")
    assert report.defences is not None
    assert "stands in front of its defences" in report.defences.missing


def test_layers_of_transforms_are_judged_through_them(digits: Any) -> None:
    step = input_transform("bit_depth", {"bits": 4})
    system = Defended(members=digits.model, transforms={"rounding": step})
    found = evaluate_layers(system, digits.data.head(12), THREAT, preset="smoke")
    assert found.layers[0].verdict == "masks"
    assert found.whole.defences is not None


def test_a_transform_is_a_defence_as_preprocessing_too(digits: Any) -> None:
    step = InputTransform(change=BitDepth(bits=3))
    behind = Pipeline([step], digits.model)
    inside = TorchModel(digits.net, preprocess=step)
    assert defences_of(inside) == defences_of(behind) == (step.defence,)
    x = torch.from_numpy(digits.data.x[:4])
    seen = seen_through(inside)
    assert defences_of(seen) == ()
    assert torch.equal(seen.scores(x), inside.scores(x))
    assert inside.gradient(x, lambda s: s[:, 0]).gradient.abs().max() == 0
    assert seen.gradient(x, lambda s: s[:, 0]).gradient.abs().max() > 0
    (cost,) = measured_defences(inside, x)
    assert cost.cost_factor is not None
    told, other = (
        evaluate(model, digits.data.head(6), THREAT, preset="smoke").defences
        for model in (inside, behind)
    )
    assert told is not None
    assert other is not None
    assert (told.missing, told.through, told.plain) == ("", other.through, other.plain)
    assert (told.masking, [one.name for one in told.carried]) == (True, [repr(step.change)])


def test_costs_are_measured_where_none_are_declared(digits: Any) -> None:
    x = torch.from_numpy(digits.data.x)
    slow = InputTransform(change=TotalVariation(steps=200))
    model = Pipeline([slow], digits.model)
    (found,) = measured_defences(model, x)
    assert found.cost_factor is not None
    assert found.cost_factor > 3
    assert inference_cost(digits.model, digits.model, x) < 3
    declared = Declared(digits.model, Defence(name="mine", cost_factor=7.0))
    assert [d.cost_factor for d in measured_defences(declared, x)] == [7.0]


def test_the_configuration_names_defences(digits: Any, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    told = {
        "model": {"kind": "torch", "factory": "model.py:build"},
        "data": {"kind": "sklearn", "name": "digits"},
        "threat": {"region": {"norm": "linf", "eps": 0.1}},
        "defences": [
            {"name": "distilled", "temperature": 20},
            {"name": "jpeg", "quality": 80},
            {"name": "noise", "sigma": 0.1, "draws": 4},
        ],
    }
    setup = from_config(parse_config(told), tmp_path)
    names = [defence.name for defence in defences_of(setup.model)]
    assert names[0].startswith("jpeg (quality 80")
    assert names[1].startswith("noise (sigma 0.1")
    assert names[2] == "distilled (temperature 20)"
    assert isinstance(setup.model, Randomized)
    assert setup.model.draws == 4


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "jpg"}, "did you mean 'jpeg'"),
        ({"name": "jpeg", "bits": 3}, "bits is only for bit_depth"),
        ({"name": "jpeg", "quality": 0}, "quality"),
        ({"name": "median", "size": 4}, "odd number"),
        ({"name": "bit_depth", "bits": 40}, "1 to 16"),
        ({"name": "jpeg", "quality": 400}, "1 to 100"),
    ],
)
def test_a_wrong_defence_is_one_line(spec: dict[str, Any], words: str, digits: Any) -> None:
    told = {
        "model": {"kind": "torch", "factory": "model.py:build"},
        "data": {"kind": "sklearn", "name": "digits"},
        "threat": {"region": {"norm": "linf", "eps": 0.1}},
        "defences": [spec],
    }
    with pytest.raises(WithstandError, match=words) as caught:
        with_defences(digits.model, parse_config(told).defences)
    assert "\n" not in str(caught.value)


NAMES = ("bit_depth", "jpeg", "distilled")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_on_mnist_what_masks_is_called_so_and_ends_where_it_began(
    name: str, sound: Callable[..., Any]
) -> None:
    base = sound("mnist")
    # Levels are 1/15 apart, so that at such a radius rounding neither helps nor harms.
    data, threat = base.unseen.head(150), Threat(region=Linf(1 / 15))
    plain = TorchModel(base.net)
    if name == "distilled":
        net = planted.distilled(base.net, base.x, steps=1500)
        plain, model = TorchModel(net), Declared(TorchModel(net), distilled(100.0))
    else:
        step = input_transform(name, {"bit_depth": {"bits": 4}, "jpeg": {"quality": 75}}[name])
        model = Defended(members=plain, transforms={name: step}).model
    without = evaluate(plain, data, threat).robust_accuracy.value
    report = evaluate(model, data, threat)
    told = report.defences
    assert told is not None
    assert told.plain is not None
    value = report.robust_accuracy.value
    print(f"{name}: plain {told.plain}, adaptive {value:.3f}, without {without:.3f}")  # noqa: T201
    assert told.masking
    assert told.plain.value > 0.6
    assert abs(value - without) <= 0.05


def test_a_domain_without_bounds_is_refused() -> None:
    with pytest.raises(WithstandError, match="needs a domain with bounds"):
        input_transform("bit_depth", {}, domain=(-np.inf, np.inf))
    with pytest.raises(WithstandError, match="did you mean 'jpeg'"):
        input_transform("jepg", {})
    with pytest.raises(WithstandError, match="no setting 'qualty'"):
        input_transform("jpeg", {"qualty": 3})
