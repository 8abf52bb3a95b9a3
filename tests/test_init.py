"""`withstand init`: a configuration from what the model and the data are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import withstand

from withstand import WithstandError
from withstand.config import Config, load_config, model_named, parse_config, template
from withstand.data import see


def _arrays(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def _configured(folder: Path) -> Config:
    return load_config(folder / "withstand.yaml")


def _load(text: str) -> Config:
    return parse_config(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("what", "kind", "opened"),
    [
        ("net.onnx", "onnx", {"weights": "net.onnx"}),
        ("trees.json", "sklearn", {"weights": "trees.json"}),
        ("trees.ubj", "sklearn", {"weights": "trees.ubj"}),
        ("net.safetensors", "torch", {"weights": "net.safetensors", "factory": "model.py:build"}),
        ("code/net.py:build", "torch", {"factory": "code/net.py:build"}),
        ("package.nets:small", "torch", {"factory": "package.nets:small"}),
        ("https://models.example.com", "http", {"url": "https://models.example.com"}),
    ],
)
def test_what_the_model_is_called_says_how_it_is_opened(
    what: str, kind: str, opened: dict[str, str]
) -> None:
    model = _load(template(**model_named(what))).model
    assert model.kind == kind
    for key in ("weights", "factory", "url"):
        assert getattr(model, key) == opened.get(key)


@pytest.mark.parametrize("what", ["net.pkl", "net.joblib", "net.pt2"])
def test_a_file_that_can_run_code_still_needs_the_word(what: str) -> None:
    text = template(**model_named(what))
    with pytest.raises(WithstandError, match="allow_pickle: true if you trust it"):
        _load(text)
    model = _load(text.replace("# allow_pickle: false", "allow_pickle: true")).model
    assert model.weights == what


def test_a_name_that_says_nothing_is_refused_with_what_could_be_given() -> None:
    with pytest.raises(WithstandError, match=r"'net'; give a file \(.*\.onnx.*\), an address"):
        model_named("net")


@pytest.mark.parametrize("kind", ["torch", "onnx", "sklearn", "http", "python"])
def test_whoever_answers_with_scores_is_not_asked_for_gradients(kind: str) -> None:
    config = _load(template(model=kind))  # type: ignore[arg-type]
    assert config.threat.access == ("gradients" if kind in ("torch", "onnx") else "scores")


def test_bytes_are_scaled_and_unit_inputs_left(tmp_path: Path) -> None:
    pictures = np.arange(48, dtype=np.uint8).reshape(3, 4, 4) * 5
    seen = see(_arrays(tmp_path, images=pictures, labels=[0, 1, 2]))
    assert (seen.x, seen.y, seen.scale, seen.domain) == ("images", "labels", 255, (0, 1))
    seen = see(_arrays(tmp_path, x=pictures / 255, y=[0, 1, 2]))
    assert (seen.x, seen.y, seen.scale, seen.domain) == ("x", "y", None, (0, 1))
    assert seen.unsure == ()


def test_the_test_set_is_meant_where_there_are_two(tmp_path: Path) -> None:
    seen = see(_arrays(tmp_path, x=[[0.0]], y=[0], x_test=[[1.0]], y_test=[1]))
    assert (seen.x, seen.y) == ("x_test", "y_test")


def test_a_range_of_its_own_becomes_the_domain_and_a_doubt(tmp_path: Path) -> None:
    seen = see(_arrays(tmp_path, x=[[-2.4, 3.1]], y=[0]))
    assert seen.domain == (-3, 4)
    assert "from -2.4 to 3.1" in seen.unsure[0]
    assert "let the model normalise" in seen.unsure[0]


@pytest.mark.parametrize("x", [[[np.nan, 2.0]], [[np.inf, 2.0]], [["a", "b"]], []])
def test_inputs_that_have_no_range_are_left_to_the_evaluation(tmp_path: Path, x: object) -> None:
    seen = see(_arrays(tmp_path, x=x, y=[0]))
    assert (seen.domain, seen.scale, seen.unsure) == ((0, 1), None, ())


def test_arrays_with_other_names_are_named(tmp_path: Path) -> None:
    seen = see(_arrays(tmp_path, a=[[0.5]], b=[0]))
    assert (seen.x, seen.y) == (None, None)
    assert [line.rsplit(" ", 1)[1] for line in seen.unsure] == ["data.x", "data.y"]


def test_folders_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    with pytest.raises(WithstandError, match=r"no images or \.wav files"):
        see(tmp_path)
    (tmp_path / "cats" / "1.wav").touch()
    assert (see(tmp_path).kind, see(tmp_path).domain) == ("audio", (-1, 1))
    (tmp_path / "cats" / "1.PNG").touch()
    assert (see(tmp_path).kind, see(tmp_path).scale) == ("images", 255)


@pytest.mark.parametrize("name", ["data.npy", "data.npz", "gone.npz"])
def test_what_is_no_data_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.npy").write_bytes(b"x")
    (tmp_path / "data.npz").write_bytes(b"x")
    with pytest.raises(WithstandError, match=name) as error:
        see(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_model_and_its_data_give_a_configuration_that_loads(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.onnx").touch()
    _arrays(tmp_path, x=[[0.0, 16.0]], y=[0])
    done = withstand("init", "--model", "models/net.onnx", "--from", "data.npz", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        "read and correct it, then run: withstand evaluate"
    )
    config = _configured(tmp_path)
    assert (config.model.weights, config.model.domain) == ("models/net.onnx", [0, 16])
    assert (config.data.kind, config.data.path, config.data.x) == ("npz", "data.npz", "x")
    assert config.threat.region.eps == pytest.approx(16 * 8 / 255)


def test_trees_and_a_table_give_both_files(tmp_path: Path) -> None:
    (tmp_path / "trees.json").touch()
    (tmp_path / "rows.csv").write_text("a,fraud\n" + "1,0\n2,1\n3,0\n4,1\n" * 20)
    done = withstand("init", "--model", "trees.json", "--from", "rows.csv", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    config = _configured(tmp_path)
    assert (config.model.kind, config.model.weights) == ("sklearn", "trees.json")
    assert (config.data.y, config.data.table) == ("fraud", "table.yaml")


def test_a_model_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    for what in ("net.onnx", "net.py:build"):
        done = withstand("init", "--model", what, folder=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{what.split(':')[0]} is not there" in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = withstand("init", "--config", "file/withstand.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: file/withstand.yaml cannot be written: Not a directory; give another --config\n"
    )
