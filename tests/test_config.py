"""withstand.yaml: the file of the design works as it stands, and every mistake is one line."""

from pathlib import Path

import pytest

from withstand import WithstandError
from withstand.config import load_config, template

FILE = """
model: {kind: torch, factory: "model.py:build", weights: weights.safetensors, domain: [0, 1]}
data: {kind: npz, path: mnist.npz, x: x_test, y: y_test, scale: 255, layout: auto, limit: 1000}
threat: {goal: untargeted, access: gradients, region: {norm: linf, eps: 0.3}, queries: 5000}
evaluate: {preset: standard, seed: 0}
gate: {robust_accuracy: {min: 0.85}, trust: {min: amber}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "withstand.yaml"
    path.write_text(text)
    return path


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FILE))
    assert config.threat.region.eps == 0.3
    assert config.threat.queries == 5000
    assert config.evaluate.preset == "standard"


def test_the_template_is_valid(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, template())).model.factory == "model.py:build"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("model:", "modell:", "did you mean 'model'"),
        ("queries: 5000", "queries: 0", "queries"),
        ("eps: 0.3", "eps: 8", "8/255"),
        ("norm: linf", "norm: lint", "linf"),
        ("threat:", "threat: [", "line"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(WithstandError, match=words) as caught:
        load_config(write(tmp_path, FILE.replace(old, new)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        "{kind: http, url: 'htp://user:hunter2@host/x'}",
        "{kind: http, url: 'http://[::1/x?key=hunter2', http: {headers: {A: hunter2}}}",
        "{kind: http, url: ['http://user:hun/ter2@host/x?key=hunter2']}",
        "{kind: onnx, weights: ['https://host/x?key=hunter2&more']}",
    ],
)
def test_what_an_address_may_hold_is_told_to_nobody(tmp_path: Path, model: str) -> None:
    kept = "\n".join(FILE.strip().splitlines()[1:])
    with pytest.raises(WithstandError, match="model") as caught:
        load_config(write(tmp_path, f"model: {model}\n{kept}"))
    assert "ter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_tells_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(WithstandError, match="withstand init"):
        load_config(tmp_path / "withstand.yaml")
