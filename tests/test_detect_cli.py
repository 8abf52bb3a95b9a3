"""`withstand detect fit | calibrate | score`: what is written, what is told, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Digits
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from withstand._errors import ConfigError, DataError, WithstandError
from withstand.cli._main import app
from withstand.config import DataConfig, json_schema, load_config, parse_config, template
from withstand.data import load_inputs, load_sklearn
from withstand.detect import (
    asked_of,
    fitted,
    from_config,
    load,
    method_of,
    registry,
    snake,
)

ROOT = Path(__file__).parents[1]
MODEL = """
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
"""
FILE = """
model: {kind: torch, factory: "model.py:build", weights: w.safetensors, domain: [0, 1]}
data: {kind: npz, path: digits.npz, x: x_test, y: y_test}
threat: {region: {norm: linf, eps: 0.15}}
detect: {methods: [METHODS], requests_per_day: 50000}
"""


@pytest.fixture
def project(digits: Digits, tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    save_file(digits.net.state_dict(), tmp_path / "w.safetensors")
    data = load_sklearn("digits")
    x, y = data.x[:, 0], data.y
    np.savez(
        tmp_path / "digits.npz",
        x_train=x[:1000], y_train=y[:1000], x_test=x[1500:1560], y_test=y[1500:1560],
    )  # fmt: skip
    np.savez(tmp_path / "new.npz", x=x[1000:1500])
    return tmp_path


def ran(project: Path, *words: str, methods: str = "confidence") -> Result:
    config = project / "withstand.yaml"
    config.write_text(FILE.replace("METHODS", methods))
    return CliRunner().invoke(app, ["detect", *words, "--config", str(config)])


def folder(project: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        (project / "withstand-detector" / "detector.json").read_text()
    )
    return told


def test_fit_calibrate_and_score(project: Path, digits: Digits) -> None:
    made = ran(project, "fit")
    assert made.exit_code == 0, made.output
    first = folder(project)
    assert first["method"] == "Confidence"
    assert 0.4 * 1000 < first["threshold"]["n"] < 0.6 * 1000
    assert f"{first['threshold']['bound'] * 50_000:,.0f}" in made.output
    assert {each["verdict"] for each in first["power"]["findings"]} <= {"green", "amber"}

    again = ran(project, "calibrate", "--data", str(project / "new.npz"), "--json", "--quiet")
    told = json.loads(again.stdout)
    assert again.exit_code == 0
    assert told["kept"]
    second = folder(project)
    (record,) = second["history"]
    assert record["old"] == first["threshold"]
    assert record["new"] == second["threshold"] == told["threshold"]
    assert second["threshold"]["n"] == 500

    shown = ran(project, "score", str(project / "new.npz"), "--json")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    made_again = load(project / "withstand-detector", digits.model)
    x = load_inputs(project / "new.npz", load_config(project / "withstand.yaml").data)
    scores, answers = made_again.scores_and_labels(torch.from_numpy(x))
    assert [row["score"] for row in rows] == scores.tolist()
    assert answers is not None
    assert [row["answer"] for row in rows] == answers.tolist()
    assert sum(row["flagged"] for row in rows) == second["threshold"]["flagged"]
    assert all(row["flagged"] == (row["suspicion"] > 0) for row in rows)
    table = ran(project, "score", str(project / "new.npz"), "--limit", "2")
    assert "2 of 500 inputs" in table.output
    assert f"{second['threshold']['flagged']} of 500 inputs flagged" in table.output


def test_confidence_is_judged_by_the_data_of_the_configuration(project: Path) -> None:
    few = ran(project, "reliability")
    assert isinstance(few.exception, DataError)
    assert "60 inputs do not tell how reliable" in str(few.exception)
    data = load_sklearn("digits")
    np.savez(project / "digits.npz", x_test=data.x[1000:1500, 0], y_test=data.y[1000:1500])
    shown = ran(project, "reliability")
    assert shown.exit_code == 0
    told = json.loads(ran(project, "reliability", "--json", "--quiet").stdout)
    lines = shown.stdout.splitlines()
    assert lines[0] == f"temperature {told['temperature']:.3g}"
    assert [line.split(":")[0] for line in lines[1:]] == ["before", "after"]
    assert told["fitted_on"] == told["after"]["error"]["n"] == 250
    folder = project / load_config(project / "withstand.yaml").evaluate.output
    assert json.loads((folder / "reliability.json").read_text()) == told
    assert (folder / "reliability.html").exists()


def test_fit_tells_how_far_it_is(project: Path) -> None:
    ran(project, "score", "new.npz")
    config = load_config(project / "withstand.yaml")
    stages: list[tuple[str, int, int]] = []
    setup = from_config(config, project)
    fitted(setup, asked_of(config), lambda now: stages.append((now.stage, now.done, now.total)))
    last = {stage: (done, total) for stage, done, total in stages}
    assert list(last) == ["fitting confidence", "calibrating"]
    assert last["fitting confidence"] == (len(setup.benign),) * 2
    assert last["calibrating"] == (len(setup.held_out),) * 2


def test_one_that_cannot_work_is_refused_unless_forced(project: Path) -> None:
    blind = "{name: noise_stability, sigma: 30, draws: 2}"
    refused = ran(project, "fit", methods=blind)
    assert refused.exit_code == 1
    assert "nothing is written" in refused.output
    assert not (project / "withstand-detector" / "detector.json").exists()
    forced = ran(project, "fit", "--force", methods=blind)
    assert forced.exit_code == 0
    assert folder(project)["power"]["forced"]
    assert "forced" in forced.output


def test_inputs_count_once(project: Path) -> None:
    ran(project, "fit")
    before = folder(project)
    fewer = load_config(project / "withstand.yaml", {"detect": {"held_out": 0.2}})
    assert 150 < len(from_config(fewer, project).held_out) < 250
    with np.load(project / "digits.npz") as arrays:
        parts = dict(arrays)
    np.savez(project / "seen.npz", x=np.concatenate((parts["x_test"][:2], parts["x_train"][:300])))
    told = ran(project, "calibrate", "--data", str(project / "seen.npz"))
    assert isinstance(told.exception, WithstandError)
    assert "are also in" in str(told.exception)
    parts["x_train"][5] = parts["x_test"][0]
    np.savez(project / "digits.npz", **parts)
    again = ran(project, "fit")
    assert "1 of" in str(again.exception)
    assert "are also in data" in str(again.exception)
    assert folder(project) == before
    # What is there twice is on one side of the split.
    parts["x_train"][5:400] = parts["x_train"][4]
    np.savez(project / "digits.npz", **parts)
    setup = from_config(load_config(project / "withstand.yaml"), project)
    twice = [part for part in (setup.benign, setup.held_out)
             if (part.x == parts["x_train"][4]).all((1, 2, 3)).any()]  # fmt: skip
    assert len(twice) == 1


def test_inputs_are_read_as_the_data_section_says(tmp_path: Path) -> None:
    whole = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    np.savez(tmp_path / "images.npz", x=whole)
    spec = DataConfig(kind="npz", path="-", x="x_test", scale=255)
    x = load_inputs(tmp_path / "images.npz", spec)
    assert x.shape == (2, 1, 8, 8)
    assert np.array_equal(x[:, 0], (whole / np.float32(255)).astype(np.float32))
    (tmp_path / "rows.csv").write_text("a,user,b\n1,u,2\n3,v,4\n")
    table = DataConfig(kind="csv", path="-", y="label", group="user")
    assert load_inputs(tmp_path / "rows.csv", table).tolist() == [[1, 2], [3, 4]]
    named = table.model_copy(update={"features": ["b", "c"]})
    with pytest.raises(DataError, match="no column 'c'"):
        load_inputs(tmp_path / "rows.csv", named)
    np.savez(tmp_path / "other.npz", z=whole)
    with pytest.raises(DataError, match="no key 'x'"):
        load_inputs(tmp_path / "other.npz", spec)
    np.savez(tmp_path / "broken.npz", x=np.full((2, 3), np.nan))
    with pytest.raises(DataError, match="NaN"):
        load_inputs(tmp_path / "broken.npz", spec)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("score", "none.npz"), "not found"),
        (("score", "withstand.yaml"), "give an .npz, .csv or .parquet file"),
        (("calibrate",), "fit a detector first"),
    ],
)
def test_a_mistake_is_one_line(project: Path, words: tuple[str, ...], said: str) -> None:
    parts = [str(project / word) if "." in word else word for word in words]
    told = ran(project, *parts)
    assert isinstance(told.exception, WithstandError)
    assert said in str(told.exception)
    assert "\n" not in str(told.exception)


def test_the_section_names_methods_with_their_settings() -> None:
    raw = {
        "model": {"kind": "torch", "factory": "m.py:build", "domain": [0, 1]},
        "data": {"kind": "sklearn", "name": "digits"},
        "threat": {"region": {"norm": "linf", "eps": 0.1}},
    }

    def asked(**section: Any) -> Any:
        return parse_config({**raw, "detect": section}).detect

    for name, method in registry().items():
        if name not in ("Fused", "Constraints"):
            assert type(method_of(asked(methods=[snake(name)]))) is method
    fused = method_of(asked(methods=["confidence", {"name": "mahalanobis", "components": 9}]))
    assert [type(part).__name__ for part in fused.parts] == ["Confidence", "Mahalanobis"]  # type: ignore[attr-defined]
    assert fused.parts[1].components == 9  # type: ignore[attr-defined]
    for section, said in (
        ({"methods": ["confidenc"]}, "did you mean 'confidence'"),
        ({"methods": [{"name": "confidence", "off": "energy"}]}, "no setting 'off'"),
        ({"methods": [{"name": "mahalanobis", "components": "many"}]}, "mahalanobis"),
    ):
        with pytest.raises(ConfigError, match=said):
            method_of(asked(**section))
    for section, said in (
        ({"methods": []}, "give a list of methods"),
        ({"by": "max"}, "only for several methods"),
        ({"fpr": 1}, "between 0 and 1"),
        ({"method": ["confidence"]}, "did you mean 'methods'"),
        ({"held_out": 0.5, "calibration": raw["data"]}, "both given"),
    ):
        with pytest.raises(ConfigError, match=said):
            asked(**section)


def test_no_section_and_no_data_tell_what_to_add(project: Path) -> None:
    config = project / "withstand.yaml"
    config.write_text(FILE.replace("detect:", "# detect:"))
    told = CliRunner().invoke(app, ["detect", "fit", "--config", str(config)])
    assert "section detect is missing" in str(told.exception)
    text = FILE.replace("METHODS", "confidence")
    config.write_text(text.replace("kind: npz, path: digits.npz, x: x_test, y: y_test",
                                   "kind: sklearn, name: digits, limit: 50"))  # fmt: skip
    told = CliRunner().invoke(app, ["detect", "fit", "--config", str(config)])
    assert "detect.data is missing" in str(told.exception)


def test_the_template_and_the_schema_know_the_section(tmp_path: Path) -> None:
    text = template()
    start = text.index("# detect:")
    section = text[start : text.index("\n\n", start)]
    lines = [line.removeprefix("# ") for line in section.splitlines()]
    path = tmp_path / "withstand.yaml"
    path.write_text(text.replace(section, "\n".join(lines)))
    found = load_config(path).detect
    assert found is not None
    assert found.methods[0].name == "mahalanobis"
    published = json.loads((ROOT / "docs" / "reference" / "config.schema.json").read_text())
    assert published == json_schema()
