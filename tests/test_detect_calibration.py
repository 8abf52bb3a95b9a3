"""Thresholds keep their promise, weak detectors are refused, and change is noticed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from networks import DATA, Sound
from numpy.typing import NDArray
from scipy.stats import beta
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand import WithstandError
from withstand._errors import DataError, DetectorError
from withstand.data import from_arrays, load_npz
from withstand.detect import (
    Confidence,
    Detector,
    DriftWatch,
    FeatureSqueezing,
    FlagRate,
    Mahalanobis,
    Method,
    Needs,
    NoiseStability,
    Observation,
    Power,
    Recalibration,
    State,
    Threshold,
    Traffic,
    Usual,
    Watch,
    _registry,
    by_class,
    calibration_error,
    check_disjoint,
    confidences,
    fit,
    load,
    power,
    powered,
    reliability,
    stability_index,
    temperature,
    threshold,
    traffic,
    usual,
)
from withstand.models import Tempered, TorchModel, network_of
from withstand.stats import clopper_pearson, lower_sequence
from withstand.threat import L0, Linf, Threat

Array = NDArray[Any]
LINF = Threat(region=Linf(0.5))


class Planes(nn.Module):
    """Four classes: which of four corners of the square an input of two features is nearest to."""

    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

    def __init__(self, sharpness: float = 20.0) -> None:
        super().__init__()
        self.hidden, self.out, self.sharpness = nn.Identity(), nn.Identity(), sharpness

    def forward(self, x: Tensor) -> Tensor:
        near = (self.hidden(x.flatten(1))[:, None] - self.corners).square().sum(2)
        scores: Tensor = self.out(-self.sharpness * near)
        return scores


def corners(n: int, seed: int = 0, spread: float = 0.12) -> Tensor:
    """Inputs (n, 1, 1, 2) around the four corners, moved into the unit square."""
    random = torch.Generator().manual_seed(seed)
    at = Planes.corners[torch.randint(0, 4, (n,), generator=random)]
    noise = spread * torch.randn(n, 2, generator=random).abs()
    return (at - at.sign() * noise + (1 - at) * noise).clamp(0, 1).reshape(n, 1, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Brightness(Method):
    """The sum of the features: a score whose distribution differs from class to class."""

    needs: ClassVar[Needs] = "input"

    def fit(self, seen: Observation) -> State:
        return {}

    def score(self, state: State, seen: Observation) -> Tensor:
        return seen.x.flatten(1).sum(1)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_OURS", (*_registry._OURS, Brightness))


def detector(method: Method | None = None, sharpness: float = 20.0) -> Detector:
    return fit(method or Brightness(), TorchModel(Planes(sharpness)), corners(400))


# Thresholds


@pytest.mark.parametrize("n", [299, 1000])
def test_a_threshold_keeps_its_promise(n: int) -> None:
    rng = np.random.default_rng(0)
    found = [threshold(rng.random(n)) for _ in range(2000)]
    true = 1 - np.asarray([each.value for each in found])
    assert (true <= 0.01).mean() >= 0.94
    assert (true <= [each.bound for each in found]).mean() >= 0.94
    # As good as the rule allows: one more flagged input would break the promise.
    assert beta.cdf(0.01, found[0].flagged + 2, n - found[0].flagged - 1) < 0.95


def test_a_threshold_for_each_class_keeps_its_promise() -> None:
    """Exponential scores of three scales, with equal shares: P(score > t) is exp(-t / scale)."""
    rng, scales, labels = np.random.default_rng(0), np.asarray([1.0, 2.0, 8.0]), np.arange(1500) % 3
    own, whole, kept = [], [], []
    for _ in range(2000):
        found = by_class(rng.exponential(size=1500) * scales[labels], labels)
        rates = np.exp([-found.value_of(label) / scales[label] for label in range(3)])
        own.append(rates <= 0.01)
        whole.append(rates.mean() <= 0.01)
        kept.append(rates.mean() <= found.bound)
        assert found.bound <= 0.01
    assert (np.mean(own, 0) >= 0.94).all()
    assert np.mean(whole) >= 0.94
    assert 0.94 <= np.mean(kept) <= 0.97


def test_one_threshold_for_all_breaks_what_classes_are_promised() -> None:
    rng, scales, labels = np.random.default_rng(0), np.asarray([1.0, 2.0, 8.0]), np.arange(1500) % 3
    kept = threshold(rng.exponential(size=1500) * scales[labels])
    assert np.exp(-kept.value / 8.0) > 0.01


def test_classes_with_too_few_inputs_share_a_threshold() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [500, 400, 200, 150])
    scores = rng.random(len(labels)) + labels
    found = by_class(scores, labels)
    assert set(found.classes) == {0, 1}
    assert found.classes[1] == threshold(scores[labels == 1])
    assert found.value == found.value_of(2) == threshold(scores[labels > 1]).value
    assert found.n == len(labels)
    few = by_class(scores[:950], labels[:950])
    # 50 others promise nothing by themselves, so none of them is flagged.
    assert few.value == max(threshold(scores[:950]).value, scores[900:950].max())
    assert Threshold.from_dict(json.loads(json.dumps(few.to_dict()))) == few
    assert "2 classes' own" in str(few)
    with pytest.raises(DataError, match="give one for each"):
        by_class(scores, labels[:3])
    with pytest.raises(DataError, match="at least 299"):
        by_class(scores[:200], labels[:200])
    with pytest.raises(DataError, match="not finite"):
        by_class([np.nan] * 400, [0] * 400)


def test_a_detector_judges_each_input_by_its_class(tmp_path: Path) -> None:
    made = detector().calibrate(corners(4000, 1), by_class=True)
    assert made.threshold is not None
    assert set(made.threshold.classes) == {0, 1, 2, 3}
    x = corners(300, 2, 0.3)
    answers = made.model.labels(x)
    limits = torch.tensor([made.threshold.value_of(int(label)) for label in answers])
    assert torch.equal(made.flags(x), made.score(x) > limits)
    assert torch.equal(made.suspicion(x), made.score(x) - limits)
    # One threshold for all never flags a dark input of the dark class.
    one = detector().calibrate(corners(4000, 1))
    lone = torch.tensor([0.45, 0.45]).reshape(1, 1, 1, 2)
    assert not one.flags(lone)
    assert made.flags(lone)
    free = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(made.suspicion(free).sum(), free)
    assert torch.equal(slope, torch.ones_like(x))
    made.save(tmp_path)
    assert torch.equal(load(tmp_path, made.model).suspicion(x), made.suspicion(x))


@pytest.mark.slow
def test_real_rates_are_compatible_with_the_promise(sound: Callable[..., Sound]) -> None:
    net = sound("mnist").net
    benign = load_npz(DATA / "mnist.npz", "x_train", "y_train", scale=255)
    test = torch.from_numpy(load_npz(DATA / "mnist.npz", "x_test", "y_test", scale=255).x)
    fitted, held_out = benign.take(np.arange(6000, 11_000)), benign.take(np.arange(11_000, 21_000))
    made = fit(Mahalanobis(), TorchModel(net), fitted)
    answers, worst = made.model.labels(test), []
    for each in (False, True):
        flags = made.calibrate(held_out, by_class=each).flags(test)
        assert clopper_pearson(int(flags.sum()), len(test)).low <= 0.01
        classes = [flags[answers == label] for label in range(10)]
        worst.append(max(float(part.float().mean()) for part in classes))
        if each:
            assert all(clopper_pearson(int(c.sum()), len(c), 0.99).low <= 0.01 for c in classes)
    assert worst[1] < worst[0]


# Power


def test_a_threshold_at_the_end_of_the_range_is_refused(tmp_path: Path) -> None:
    noisy = detector(NoiseStability(sigma=2.0, draws=4), 200.0).calibrate(corners(600, 1))
    found = power(noisy, corners(200, 3))
    assert {each.check for each in found.red} >= {"end of the range", "benign answers that change"}
    with pytest.raises(DetectorError, match="exceeds 2") as caught:
        powered(noisy, corners(200, 3))
    assert "\n" not in str(caught.value)
    kept = powered(noisy, corners(200, 3), force=True)
    assert kept.power is not None
    assert kept.power.forced
    kept.save(tmp_path)
    assert load(tmp_path, kept.model).power == kept.power
    quiet = detector(NoiseStability(sigma=0.01, draws=4), 200.0).calibrate(corners(600, 1))
    checks = {each.check: each for each in power(quiet, corners(200, 3)).findings}
    assert checks["end of the range"].verdict == "green"
    assert checks["benign answers that change"].verdict == "green"


def test_a_transform_that_changes_benign_answers_is_named_with_its_share() -> None:
    """A window of 2 mixes the features: every input of the corners (0, 1) changes its class."""
    # Rounding to 8 bits changes none: the worst of both is what counts.
    squeezed = detector(FeatureSqueezing(bits=8, median=2)).calibrate(corners(600, 1))
    x = corners(200, 3)
    found = power(squeezed, x)
    (flips,) = [each for each in found.findings if each.check == "benign answers that change"]
    wider = torch.maximum(x, torch.cat((x[..., :1], x[..., :-1]), 3))
    model = squeezed.model
    assert flips.value == pytest.approx(
        float((model.labels(wider) != model.labels(x)).float().mean())
    )
    assert flips.verdict == "red"


def test_flags_of_what_it_should_see_are_measured() -> None:
    sees = power(detector(Confidence()).calibrate(corners(600, 1)), corners(60, 3), LINF)
    rates = {each.check: each for each in sees.findings}
    assert not sees.red
    assert rates["flags examples just past the boundary"].verdict == "green"
    # Without gradients or a norm that PGD knows, that is said, and nothing is refused for it.
    unknown = power(detector(Mahalanobis(layers=("hidden",))).calibrate(corners(600, 1)),
                    corners(60, 3), Threat(region=L0(1)))  # fmt: skip
    assert any("not known" in each.meaning for each in unknown.findings)
    assert not unknown.red
    with pytest.raises(DataError, match="calibrate"):
        power(detector(), corners(300))


def test_a_detector_that_sees_nothing_is_refused() -> None:
    class Constant(Brightness):
        def score(self, state: State, seen: Observation) -> Tensor:
            return seen.x.new_zeros(len(seen.x)) * seen.x.flatten(1).sum(1)

    blind = detector(Constant()).calibrate(corners(600, 1))
    found = power(blind, corners(60, 3), LINF)
    assert {each.check.split()[0] for each in found.red} == {"flags"}
    with pytest.raises(DetectorError, match="not surely more"):
        found.demand()
    assert found.demand(force=True).forced
    assert Power.from_dict(json.loads(json.dumps(found.to_dict()))) == found


# Recalibration


def test_recalibration_tells_what_changed(tmp_path: Path) -> None:
    old = detector().calibrate(corners(1000, 1, 0.05))
    new = old.recalibrate(corners(1000, 2, 0.3), fpr=0.02)
    assert old.threshold is not None
    assert new.threshold is not None
    (record,) = new.history
    assert record.old == old.threshold
    assert record.new == new.threshold
    assert new.threshold.fpr == 0.02
    assert new.threshold.value != old.threshold.value
    assert record.old_rate.value == pytest.approx(
        float(old.flags(corners(1000, 2, 0.3)).float().mean())
    )
    assert record.new_rate.value == new.threshold.flagged / 1000
    same = old.recalibrate(corners(1000, 3, 0.05))
    assert not same.history[0].broken
    assert "does not contradict" in str(same.history[0])
    again = same.recalibrate(corners(2000, 4), by_class=True)
    assert again.threshold is not None
    assert again.threshold.classes
    assert len(again.history) == 2
    again.save(tmp_path)
    assert load(tmp_path, again.model).history == again.history
    moved = replace(record, old=replace(record.old, value=1.0), old_rate=record.new_rate)
    assert Recalibration.from_dict(moved.to_dict()) == moved
    with pytest.raises(DataError, match="no threshold"):
        detector().recalibrate(corners(1000))


def test_a_description_without_its_state_is_noticed(tmp_path: Path) -> None:
    """As an interruption between both files would leave it."""
    made = detector(Mahalanobis(layers=("hidden",)))
    made.save(tmp_path)
    (tmp_path / "state.safetensors").write_bytes(
        fit(Mahalanobis(layers=("hidden",)), made.model, corners(300, 5))
        .save(tmp_path / "new")[0]
        .read_bytes()
    )
    with pytest.raises(DataError, match="of another detector"):
        load(tmp_path, made.model)


def test_a_broken_promise_is_told() -> None:
    old = detector(Confidence()).calibrate(corners(1000, 1, 0.05))
    record = old.recalibrate(corners(1000, 2, 0.3)).history[0]
    assert record.broken
    assert "surely more than the 1 % it promised" in str(record)
    assert record.old_rate.low > 0.01
    # 14 of 1,000 are more than 1 %, and no proof that more than 1 % are flagged.
    assert not replace(record, old_rate=clopper_pearson(14, 1000)).broken


# The live rate


def live(rate: float, looks: int, batch: int, seed: int, watch: FlagRate) -> FlagRate:
    rng = np.random.default_rng(seed)
    for _ in range(looks):
        watch = watch.update(rng.random(batch) < rate)
        if watch.alarm:
            break
    return watch


def test_a_rate_that_is_kept_rarely_alarms() -> None:
    alarms = sum(live(0.01, 100, 200, seed, FlagRate(window=2000)).alarm for seed in range(60))
    # 3 of 60 are allowed over endless looks; 8 would be a chance of one in a hundred.
    assert alarms <= 7


def test_a_rate_that_rises_is_noticed_also_after_a_long_quiet_time() -> None:
    for rate, most in ((0.02, 6000), (0.05, 600)):
        late = []
        for seed in range(20):
            quiet = live(0.005, 50, 1000, seed, FlagRate())
            assert not quiet.alarm
            at = live(rate, 200, 50, 100 + seed, quiet).alarmed_at
            assert at is not None
            late.append(at - quiet.n)
        assert np.median(late) <= most
    # Without windows the quiet time would have to be made up for.
    slow = live(0.02, 60, 50, 1, live(0.005, 50, 1000, 0, FlagRate(window=10**9)))
    assert not slow.alarm


def test_a_flag_rate_is_plain_values_and_batches_do_not_matter() -> None:
    flags = np.random.default_rng(0).random(3000) < 0.03
    one = FlagRate()
    for flag in flags[:500]:
        one = one.update(bool(flag))
    whole = FlagRate().update(flags[:500])
    assert replace(one, alarmed_at=None) == replace(whole, alarmed_at=None)
    assert one.alarm
    restored = FlagRate.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert restored == whole
    assert restored.update(flags[500:]) == whole.update(flags[500:])
    assert FlagRate().update(flags).lifetime.low > 0.01
    assert whole.recent.low <= whole.recent.value <= whole.recent.high
    assert FlagRate().lifetime.high == 1
    # The chances of all windows together are half of alpha.
    ninth = FlagRate(windows=9, recent_n=500, recent_flagged=20)
    assert ninth.recent.low == float(lower_sequence(20, 500, 0.05 / 2 / 90))
    assert ninth.lifetime.n == 0
    for wrong in ({"fpr": 0.0}, {"alpha": 1.0}, {"window": 0}):
        with pytest.raises(DataError):
            FlagRate(**wrong)  # type: ignore[arg-type]


# Drift


def simulated(
    n: int,
    seed: int,
    *,
    shift: float = 0.0,
    attack: float = 0.0,
    target: int | None = None,
    barely: bool = False,
    evades: bool = False,
) -> Traffic:
    """Normal scores, ten equal classes; of the attackers' share all have scores higher by 4."""
    rng = np.random.default_rng(seed)
    adversarial = rng.random(n) < attack
    scores = rng.normal(size=n) + shift + 4 * (adversarial & (not evades))
    margins = rng.beta(8, 1, n) * np.where(adversarial & barely, 0.1, 1.0)
    answers = rng.integers(0, 10, n)
    answers = np.where(adversarial, target, answers) if target is not None else answers
    return Traffic(
        scores=scores,
        confidences=(1 + margins) / 2,
        margins=margins,
        answers=answers,
        labels=np.full(n, -1),
    )


def drifted(seed: int, n: int = 6000, **kind: Any) -> DriftWatch:
    watch = DriftWatch.start(usual(simulated(2000, seed), classes=10))
    for at in range(n // 500):
        watch = watch.update(simulated(500, 1000 * seed + at + 100, **kind))
    return watch


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"shift": 0.4}, "natural"),
        ({"attack": 0.08, "target": 3}, "adversarial"),
        ({"attack": 0.05, "barely": True}, "adversarial"),
        ({"attack": 0.05}, "unclear"),
        ({"attack": 0.15, "target": 3, "evades": True}, "unclear"),
        ({"shift": 0.5, "attack": 0.3, "target": 3}, "unclear"),
    ],
)
def test_a_shift_is_told_apart_where_it_can_be(kind: dict[str, Any], told: str) -> None:
    found = Counter(drifted(seed, **kind).shift.kind for seed in range(5))
    assert found[told] >= 4  # type: ignore[index]
    # Whatever is missed, drift is never called an attack, or an attack drift.
    assert set(found) <= {told, "unclear", "none"}


def test_too_few_inputs_do_not_tell_that_the_bulk_is_as_before() -> None:
    start = DriftWatch.start(usual(simulated(2000, 0), classes=10))
    early = start.update(simulated(150, 5, attack=0.4, barely=True))
    assert {"tail", "low margins"} <= set(early.alarms)
    assert early.shift.kind == "unclear"
    assert "not known yet" in early.shift.why


def test_nothing_is_told_where_nothing_changed() -> None:
    assert sum(drifted(seed).shift.kind != "none" for seed in range(16)) <= 3


def test_m4_and_m5_are_what_they_are_called() -> None:
    watch = DriftWatch.start(usual(simulated(5000, 0), classes=10))
    parts = [simulated(700, seed, shift=0.2, attack=0.1) for seed in range(1, 4)]
    for part in parts:
        watch = watch.update(part)
    confidence = np.concatenate([part.confidences for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    assert watch.confidence_variance == pytest.approx(confidence.var())
    assert watch.anomaly_rate == pytest.approx((scores > watch.usual.tail).mean())
    reading = watch.reading()
    assert json.loads(json.dumps(reading)) == reading
    assert reading["anomaly_rate"] > reading["means"]["tail"]["high"]
    restored = DriftWatch.from_dict(json.loads(json.dumps(watch.to_dict())))
    more = simulated(5000, 9)
    lone = watch
    for at in range(20):
        row = slice(at, at + 1)
        lone = lone.update(Traffic(**{name: each[row] for name, each in vars(more).items()}))
    together = watch.update(Traffic(**{name: each[:20] for name, each in vars(more).items()}))
    assert lone.watch.rises == pytest.approx(together.watch.rises)
    assert lone.watch.means == pytest.approx(together.watch.means, nan_ok=True)
    assert restored.update(more).reading() == watch.update(more).reading()
    empty = DriftWatch.start(watch.usual).reading()
    assert empty["confidence_variance"] is None


def test_labels_that_come_later_are_watched_where_they_are_known() -> None:
    known = replace(simulated(2000, 0), labels=np.arange(2000) % 10)
    watch = DriftWatch.start(usual(known, classes=10))
    for seed in range(10):
        part = simulated(500, 50 + seed)
        labels = np.where(np.arange(500) % 2, 7, -1)
        watch = watch.update(replace(part, labels=labels))
    assert watch.alarms == ("labels 7",)
    assert watch.shift.kind == "unclear"


def test_a_watch_is_a_supermartingale_in_each_mean() -> None:
    """With bets on a coin, wealth is the product of 1 + stake / m (x - m) averaged over stakes."""
    watch = Watch.start(
        above=np.asarray([0.1]), below=np.asarray([0.0]), alpha=np.asarray([0.1]), window=100
    )
    values = np.asarray([1.0, 0.0, 1.0, np.nan])[:, None]
    wealth = np.exp(watch.update(values).rises)
    stakes = 2.0 ** -np.arange(1, 10)
    assert wealth[0] == pytest.approx((1 + 9 * stakes) ** 2 * (1 - stakes))
    assert watch.update(values).means == pytest.approx(2 / 3)
    # The mean of (1 + 9 stakes)^k first reaches 2 * 2 / alpha = 40 at k = 4.
    surely = watch
    for _ in range(6):
        surely = surely.update(np.ones((1, 1)))
    assert surely.alarms == 4
    fell = replace(watch, above=np.ones(1), below=np.asarray([0.5]))
    assert fell.update(np.zeros((30, 1))).alarms == 30
    assert fell.update(np.ones((30, 1))).alarms == 0
    assert replace(watch, windows=1000).update(np.ones((4, 1))).alarms == 0
    assert surely.update(np.ones((200, 1))).alarms == 4


def test_what_is_usual_needs_enough_inputs() -> None:
    with pytest.raises(DataError, match="at least 300"):
        usual(simulated(299, 0), classes=10)
    with pytest.raises(DataError, match="there are 3 classes"):
        usual(simulated(400, 0), classes=3)
    watch = DriftWatch.start(usual(simulated(400, 0), classes=10))
    broken = simulated(10, 1)
    broken.scores[3] = np.nan
    with pytest.raises(DataError, match="not finite"):
        watch.update(broken)
    for wrong in ({"alpha": 0.0}, {"window": 0}):
        with pytest.raises(DataError):
            DriftWatch.start(watch.usual, **wrong)  # type: ignore[arg-type]


def test_traffic_is_read_from_a_detector() -> None:
    made = detector(Confidence()).calibrate(corners(600, 1))
    asked: list[int] = []
    counted = network_of(made.model)
    assert counted is not None
    hook = counted.register_forward_hook(lambda net, given, out: asked.append(len(out)))
    seen = traffic(made, corners(500, 5), labels=np.zeros(500, np.int64))
    hook.remove()
    assert asked == [256, 244]
    assert (seen.scores == made.score(corners(500, 5)).double().numpy()).all()
    probabilities = made.model.scores(corners(500, 5)).softmax(1)
    assert seen.confidences == pytest.approx(probabilities.amax(1).numpy(), abs=1e-6)
    assert (seen.answers == made.model.labels(corners(500, 5)).numpy()).all()
    watch = DriftWatch.start(usual(seen, classes=4)).update(traffic(made, corners(500, 6)))
    assert watch.shift.kind == "none"


# The model's own confidence


def test_a_stability_index_is_rarely_moved_by_chance_and_surely_by_a_shift() -> None:
    rng = np.random.default_rng(0)
    still = [stability_index(rng.normal(size=600), rng.normal(size=400)).moved for _ in range(20)]
    # 1 is expected, and 5 of 20 come with a chance of 0.3 %.
    assert sum(still) < 5
    found = stability_index(rng.normal(size=600), rng.normal(0.5, size=400))
    assert found.moved
    assert found.value.low > found.chance
    assert "moved" in str(found)
    assert "not surely" not in str(found)


def test_the_stability_index_of_two_bins_is_its_closed_form() -> None:
    benign, scores = np.repeat([0.0, 1.0], [200, 200]), np.repeat([0.0, 1.0], [100, 300])
    found = stability_index(benign, scores, bins=2)
    q = 300.5 / 401
    expected = (q - 0.5) * np.log(q / 0.5) + (0.5 - q) * np.log((1 - q) / 0.5)
    assert found.value.value == pytest.approx(expected)
    assert found.bins == 2
    assert found.chance == pytest.approx(3.8415 * (1 / 400 + 1 / 400), rel=1e-4)
    # All benign scores alike: what is above them has no benign share, and the index is finite.
    assert stability_index(np.zeros(400), scores).value.value > 1


def test_few_or_broken_scores_have_no_stability_index() -> None:
    fine = np.zeros(300)
    for benign, scores, told in (
        (fine, fine[1:], "299 scores do not tell"),
        (fine[1:], fine, "299 benign scores do not tell"),
        (fine, np.append(fine, np.nan), "scores are not finite"),
    ):
        with pytest.raises(DataError, match=told):
            stability_index(benign, scores)
    with pytest.raises(DataError, match="bins is 1; give 2 to 100"):
        stability_index(fine, fine, bins=1)


def drawn(n: int, seed: int = 0) -> tuple[Array, Array]:
    """Scores (n, 5) whose softmax is exactly the probability of each label."""
    rng = np.random.default_rng(seed)
    scores = 3 * rng.normal(size=(n, 5))
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    labels = (shares.cumsum(1) < rng.random((n, 1))).sum(1)
    return scores, np.minimum(labels, 4)


@pytest.mark.parametrize("factor", [0.2, 1.0, 8.0])
def test_temperature_undoes_what_made_a_model_too_sure(factor: float) -> None:
    scores, labels = drawn(8000)
    found = temperature(factor * scores, labels)
    assert found == pytest.approx(factor, rel=0.08)
    # The least loss there is: no other temperature has less.
    logits, truth = torch.from_numpy(factor * scores), torch.from_numpy(labels)
    losses = [float(cross_entropy(logits / (found * k), truth)) for k in (1.0, 0.98, 1.02)]
    assert losses[0] < min(losses[1:])


def test_the_calibration_error_of_a_sure_and_wrong_model_is_one() -> None:
    assert calibration_error(np.ones(100), np.zeros(100)) == 1
    assert calibration_error(np.full(100, 0.5), np.arange(100) % 2, bins=1) == 0
    # Two bins of 50: 0.9 where 0.6 are right and 0.2 where 0.4 are, whose mean gap is 0.25.
    confidence = np.repeat([0.9, 0.2], 50)
    right = np.concatenate((np.arange(50) < 30, np.arange(50) < 20))
    assert calibration_error(confidence, right, bins=2) == pytest.approx(0.25)


def test_an_exact_confidence_is_off_by_chance_only() -> None:
    scores, labels = drawn(800, 1)
    exact = confidences(scores, labels)
    assert exact.error.value < 2 * exact.chance
    sharp = confidences(5 * scores, labels)
    assert sharp.error.low > 2 * sharp.chance
    assert all(each.low <= each.confidence <= each.high for each in sharp.bins)


def test_reliability_is_judged_on_other_inputs(tmp_path: Path) -> None:
    x = corners(1000, 7)
    y = (TorchModel(Planes()).labels(x).numpy() + (np.arange(1000) % 5 == 0)) % 4
    found = reliability(TorchModel(Planes(200.0)), from_arrays(x.numpy(), y))
    assert found.fitted_on == found.after.error.n == 500
    assert found.after.loss < found.before.loss
    assert found.after.error.high < found.before.error.low
    page, told = (found.save(tmp_path)[at].read_text() for at in (1, 0))
    assert page.count('<svg class="chart"') == 2
    assert json.loads(told)["temperature"] == found.after.temperature
    cooler = Tempered(TorchModel(Planes(200.0)), found.after.temperature)
    assert torch.equal(cooler.labels(x), TorchModel(Planes(200.0)).labels(x))
    with pytest.raises(DataError, match="at least 200"):
        reliability(TorchModel(Planes()), from_arrays(x[:100].numpy(), y[:100]))
    with pytest.raises(DataError, match="no classes"):
        reliability(TorchModel(Planes()), from_arrays(x.numpy(), y + 0.5))
    for scores, labels in ((np.ones((3, 2)), np.asarray([0, 1, 2])), (np.ones((3, 2)), [0])):
        with pytest.raises(DataError):
            temperature(scores, np.asarray(labels))


# Data


def test_parts_of_the_data_share_no_input() -> None:
    first, second = corners(50, 1).numpy(), corners(50, 2).numpy()
    check_disjoint({"data": first, "detect.data": second})
    second[[3, 7]] = first[5]
    with pytest.raises(
        WithstandError, match=r"2 of 50 inputs of detect\.data are also in data, first in row 3"
    ):
        check_disjoint({"data": first, "detect.data": second})
    assert isinstance(usual(simulated(400, 0), classes=10), Usual)
