"""`withstand harden` from a configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from training import kept
from typer.testing import CliRunner

from withstand.cli._main import app
from withstand.data import load_sklearn
from withstand.evaluate import TrainingCost, load_report
from withstand.harden import ibp_weights
from withstand.models import TorchModel, describe


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    digits = load_sklearn("digits", limit=500)
    np.savez(
        tmp_path / "digits.npz",
        x_train=digits.x[:400, 0],
        y_train=digits.y[:400],
        x_test=digits.x[400:, 0],
        y_test=digits.y[400:],
    )
    (tmp_path / "model.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    (tmp_path / "withstand.yaml").write_text(
        "model: {kind: torch, factory: 'model.py:build', weights: w/weights.safetensors}\n"
        "data: {kind: npz, path: digits.npz, x: x_test, y: y_test, limit: 30}\n"
        "threat: {region: {norm: linf, eps: 0.05}}\n"
        "evaluate: {preset: smoke}\n"
        "harden: {recipe: fgsm, epochs: 2, rate: 0.02, output: w}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_trains_evaluates_and_goes_on_from_its_weights(project: Path) -> None:
    ran = CliRunner().invoke(app, ["harden", "--json", "--quiet"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert [epoch["recipe"] for epoch in told["harden"]["history"]] == ["FGSM", "FGSM"]
    assert told["report"]["robust_accuracy"]["n"] == 30
    assert told["harden"]["cost"]["passes"] > 2
    names = {file.name for file in (project / "w").iterdir()}
    assert {"weights.safetensors", "harden.json", "report.json", "report.html"} <= names
    assert not any("checkpoint" in name for name in names)
    first = told["harden"]["provenance"]["after"]["digest"]

    ran = CliRunner().invoke(app, ["harden", "--no-evaluate", "--recipe", "pgd", "--epochs", "1"])
    assert ran.exit_code == 0
    assert "times standard training" in ran.stdout
    told = json.loads((project / "w" / "harden.json").read_text())
    assert told["provenance"]["before"]["digest"] == first


def test_a_report_of_other_weights_does_not_stay_beside_the_new_ones(project: Path) -> None:
    assert CliRunner().invoke(app, ["harden", "--quiet"]).exit_code == 0
    (project / "w" / "own.txt").write_text("the user's own")
    ran = CliRunner().invoke(app, ["harden", "--no-evaluate", "--epochs", "1", "--quiet"])
    assert ran.exit_code == 0, ran.output
    names = {file.name for file in (project / "w").iterdir()}
    assert names == {"weights.safetensors", "harden.json", "own.txt"}


def test_the_seed_is_that_of_a_factory_that_draws_too(project: Path) -> None:
    digests = []
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        words = ["--no-evaluate", "--quiet", "--epochs", "1", "--output", folder]
        ran = CliRunner().invoke(app, ["harden", "--seed", str(seed), *words])
        assert ran.exit_code == 0, ran.output
        told = json.loads((project / folder / "harden.json").read_text())["provenance"]
        digests.append((told["before"]["digest"], told["after"]["digest"]))
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]


def test_a_late_start_leaves_the_growth_that_nobody_asked_for_what_is_left(project: Path) -> None:
    path = project / "withstand.yaml"
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 2, start: 0.9"))
    ran = CliRunner().invoke(app, ["harden", "--no-evaluate", "--quiet"])
    assert ran.exit_code == 0, ran.output
    told = json.loads((project / "w" / "harden.json").read_text())["provenance"]["settings"]
    assert (told["start"], round(told["growth"], 6)) == (0.9, 0.1)


def test_a_training_that_learns_nothing_says_so(project: Path) -> None:
    path = project / "withstand.yaml"
    path.write_text(path.read_text().replace("rate: 0.02", "rate: 1.0e-9, ema: 0"))
    ran = CliRunner().invoke(app, ["harden", "--no-evaluate", "--quiet"])
    assert ran.exit_code == 0, ran.output
    (note,) = json.loads((project / "w" / "harden.json").read_text())["notes"]
    assert "it has learnt nothing; try another rate" in note
    assert note in ran.stdout


def test_several_norms_are_told_one_by_one_and_together(project: Path) -> None:
    path = project / "withstand.yaml"
    several = (
        "recipe: alternating, norms: [{norm: l2, eps: 0.3}, {norm: linf, eps: 0.02}], "
        "shares: [0.2, 0.4, 0.4], random_start: false, steps: 2"
    )
    path.write_text(path.read_text().replace("recipe: fgsm", several))
    ran = CliRunner().invoke(app, ["harden", "--json", "--quiet"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["harden"]["alarms"] == []
    united = json.loads((project / "w" / "union.json").read_text())
    assert told["union"] == united
    figures = [
        json.loads((project / "w" / place / "report.json").read_text())["robust_accuracy"]
        for place in ("", "l2-0.3", "linf-0.02")
    ]
    assert list(united["robust_accuracy"].values()) == figures
    assert united["union"]["value"] <= min(figure["value"] for figure in figures)
    assert united["training"]["factor"] == told["harden"]["cost"]["factor"]

    ran = CliRunner().invoke(app, ["harden", "--quiet", "--epochs", "1"])
    assert "all of them (union)" in ran.stdout


def test_what_the_training_cost_stands_beside_what_it_came_to(project: Path) -> None:
    ran = CliRunner().invoke(app, ["harden", "--quiet"])
    assert ran.exit_code == 0, ran.output
    assert re.search(r"\d+\.\d x$", ran.stdout, re.MULTILINE)
    assert re.search(r"robust at most \d+\.\d % \[", ran.stdout)
    cost = json.loads((project / "w" / "harden.json").read_text())["cost"]
    kept = {name: cost[name] for name in ("factor", "seconds", "standard_seconds", "passes")}
    assert json.loads((project / "w" / "report.json").read_text())["training"] == kept

    ran = CliRunner().invoke(app, ["evaluate", "--quiet", "--output", "r"])
    assert ran.exit_code == 0, ran.output
    assert f"{cost['factor']:.1f} times standard training" in ran.stdout
    assert json.loads((project / "r" / "report.json").read_text())["training"] == kept
    assert load_report(project / "r").training == TrainingCost(**kept)
    assert f"{cost['factor']:.1f} times standard" in (project / "r" / "report.html").read_text()

    # Beside other weights it tells nothing.
    told = json.loads((project / "w" / "harden.json").read_text())
    told["provenance"]["after"]["digest"] = "0" * 64
    (project / "w" / "harden.json").write_text(json.dumps(told))
    ran = CliRunner().invoke(app, ["evaluate", "--json", "--quiet", "--output", "r"])
    assert json.loads(ran.stdout)["training"] is None


def test_the_command_trains_for_proofs_from_weights_of_its_own(project: Path) -> None:
    path = project / "withstand.yaml"
    asked = "recipe: ibp, clean: 0.2, ema: 0"
    path.write_text(path.read_text().replace("recipe: fgsm", asked).replace("0.05", "0.02"))
    ran = CliRunner().invoke(app, ["harden", "--quiet", "--no-evaluate", "--epochs", "6"])
    assert ran.exit_code == 0, ran.output
    assert "held out, proven: at least" in ran.stdout
    told = json.loads((project / "w" / "harden.json").read_text())
    assert told["held_out"]["certified_accuracy_at_least"]["value"] > 0.5
    assert told["provenance"]["settings"]["growth"] == 0.5
    assert told["provenance"]["settings"]["schedule"].startswith("flat")
    drawn = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    ibp_weights(drawn, seed=0)
    assert told["provenance"]["before"]["digest"] == describe(TorchModel(drawn))["digest"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("recipe: fgsm", "recipe: fgms", "did you mean 'fgsm'"),
        ("recipe: fgsm", "recipe: fgsm, steps: 3", "only for recipe pgd"),
        ("kind: torch", "kind: sklearn", "trains kind torch"),
        ("digits.npz, x: x_test, y: y_test", "other.npz", "harden.data is missing"),
        ("epochs: 2", "epochs: 0", "harden.epochs"),
        ("epochs: 2", "ema: 1", "harden.ema is 1; give from 0 to below 1"),
        ("epochs: 2", "held_out: 0", "harden.held_out is 0; give a share between"),
        ("epochs: 2", "start: 0.9, growth: 0.3", "harden.start is 0.9 and growth 0.3"),
        ("recipe: fgsm", "recipe: standard, growth: 0.1", "harden.growth has no use in recipe"),
        ("recipe: fgsm", "recipe: noise, sigma: 0.1, guard: true", "harden.guard has no use"),
    ],
)
def test_the_command_names_what_is_wrong(project: Path, old: str, new: str, words: str) -> None:
    np.savez(project / "other.npz", x=np.zeros((4, 8, 8)), y=np.arange(4))
    path = project / "withstand.yaml"
    text = path.read_text().replace(old, new)
    path.write_text(text.replace(", weights: w/weights.safetensors", ""))
    ran = CliRunner().invoke(app, ["harden", "--quiet"])
    assert words in str(ran.exception), ran.output


def test_the_command_fine_tunes_and_its_exit_code_tells(project: Path) -> None:
    digits = load_sklearn("digits", limit=500)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    kept(project / "corpus", net, digits.take(np.arange(400, 500)), 0.1)
    ran = CliRunner().invoke(app, ["harden", "--corpus", "corpus", "--quiet", "--no-evaluate"])
    told = json.loads((project / "w" / "finetune.json").read_text())
    assert ran.exit_code == {"pass": 0, "fail": 1, "inconclusive": 3}[told["outcome"]]
    assert "Regression check" in ran.stdout
    assert told["outcome"] in ran.stdout
