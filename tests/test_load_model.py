"""From the configuration to a model: what fits is loaded, what does not is told in one line."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

from withstand import WithstandError
from withstand._errors import ConfigError, ModelError
from withstand.config import ModelConfig, parse_config
from withstand.evaluate import from_config
from withstand.models import FunctionModel, TorchModel, describe, load_model

NET = """
from torch import nn
from sizes import WIDTH

def build():
    return nn.Sequential(nn.Linear(2, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3))

def broken():
    width = 0
    return 1 / width

def wrong():
    return 7

def needs(argument):
    return argument

def function():
    return lambda x: x @ [[1.0, 0.0], [0.0, 2.0]]

def labels():
    return lambda x: x.argmax(1)

def wrapped():
    from withstand.models import TorchModel

    return TorchModel(build(), domain=(0, 255))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "model.py").write_text(NET)
    (tmp_path / "deep" / "sizes.py").write_text("WIDTH = 4\n")
    sys.modules.pop("sizes", None)
    return tmp_path


def spec(name: str = "build", kind: str = "torch", **more: Any) -> ModelConfig:
    return ModelConfig.model_validate({"kind": kind, "factory": f"deep/model.py:{name}", **more})


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))


def refused(words: str, config: ModelConfig, root: Path) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load_model(config, root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_are_loaded(folder: Path, suffix: str) -> None:
    saved = net()
    path = folder / f"w.{suffix}"
    if suffix == "pt":
        torch.save(saved.state_dict(), path)
    else:
        save_file(saved.state_dict(), path)
    model = load_model(spec(weights=path.name, domain=[[0, -1], [1, 5]]), folder)
    x = torch.rand(3, 2)
    assert torch.equal(model.scores(x), saved(x))
    assert np.asarray(model.domain.lower).tolist() == [0, -1]
    told = describe(model)
    assert (told["net"], told["parameters"]) == ("Sequential", 27)
    assert told["digest"] == describe(TorchModel(saved))["digest"]
    assert told["digest"] != describe(TorchModel(net()))["digest"]
    assert isinstance(model, TorchModel)
    assert not any(module.training for module in model.net.modules())


def test_loading_leaves_the_process_as_it_was(folder: Path) -> None:
    path, random = list(sys.path), torch.get_rng_state()
    model = load_model(spec(), folder)
    assert isinstance(model, TorchModel)
    assert sys.path == path
    assert torch.equal(torch.get_rng_state(), random)
    assert "model" not in sys.modules
    refused("ZeroDivisionError", spec("broken"), folder)
    assert sys.path == path


def test_two_files_of_one_name_do_not_meet(folder: Path) -> None:
    (folder / "model.py").write_text("class Own:\n    pass\n\ndef build():\n    return Own\n")
    first = load_model(spec(), folder)
    refused("gave a type", ModelConfig(kind="torch", factory="model.py:build"), folder)
    names = [name for name in sys.modules if name.startswith("_withstand_model_")]
    assert len(names) >= 2
    assert first.scores(torch.rand(1, 2)).shape == (1, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("0.bias"), "missing 0.bias; use the factory"),
        (lambda w: w.update(extra=torch.zeros(1)), "unknown extra; use the factory"),
        (lambda w: w.update({"2.bias": torch.zeros(5)}), r"2.bias is \[5\], the model has \[3\]"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, change: Any, words: str) -> None:
    weights = dict(net().state_dict())
    change(weights)
    save_file(weights, folder / "w.safetensors")
    refused(words, spec(weights="w.safetensors"), folder)


def test_weights_that_cannot_be_read(folder: Path) -> None:
    refused("w.pt are not there", spec(weights="w.pt"), folder)
    (folder / "w.pt").write_text("hello")
    refused("cannot be read .* save a state_dict", spec(weights="w.pt"), folder)
    (folder / "w.safetensors").write_text("hello")
    refused("cannot be read", spec(weights="w.safetensors"), folder)
    torch.save({"epoch": 3, "state_dict": net().state_dict()}, folder / "w.pt")
    refused("no state_dict of tensors but epoch, state_dict", spec(weights="w.pt"), folder)


def test_a_pickle_is_opened_on_the_users_word_only(folder: Path) -> None:
    saved = net()
    torch.save(saved, folder / "w.pt")
    refused("allow_pickle: true opens a pickle that you trust", spec(weights="w.pt"), folder)
    model = load_model(spec(weights="w.pt", allow_pickle=True), folder)
    x = torch.rand(2, 2)
    assert torch.equal(model.scores(x), saved(x))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "line 10 of model.py: ZeroDivisionError: division by zero"),
        ("wrong", "gave a int; for kind torch it must give a torch module"),
        ("needs", "called without arguments: TypeError"),
        ("biuld", "no callable 'biuld', did you mean 'build'"),
    ],
)
def test_factories_that_fail(folder: Path, name: str, words: str) -> None:
    refused(words, spec(name), folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def build(:\n", "SyntaxError"),
        ("\nimport nothing_like_this\n", "line 2 of bad.py: ModuleNotFoundError"),
        ("raise SystemExit('bye')\n", "line 1 of bad.py: SystemExit: bye"),
    ],
)
def test_files_that_fail(folder: Path, text: str, words: str) -> None:
    (folder / "bad.py").write_text(text)
    refused(words, ModelConfig(kind="torch", factory="bad.py:build"), folder)


def test_places_that_are_not_there(folder: Path) -> None:
    refused("gone.py is not there", ModelConfig(kind="torch", factory="gone.py:build"), folder)
    refused(
        "no_such_package failed: ModuleNotFoundError.* for a file write .*no_such_package.py:",
        ModelConfig(kind="torch", factory="no_such_package:build"),
        folder,
    )


def test_functions(folder: Path) -> None:
    model = load_model(spec("function", "python"), folder)
    assert model.scores(torch.ones(2, 2)).tolist() == [[1, 2], [1, 2]]
    voted = load_model(spec("labels", "python", access="labels"), folder)
    assert voted.access == "labels"
    assert voted.labels(torch.eye(2)).tolist() == [0, 1]
    refused("a function of a numpy batch", spec("wrong", "python"), folder)
    refused("take weights out", spec("function", "python", weights="w.pt"), folder)


ESTIMATORS = """
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

def fitted():
    return LogisticRegression(max_iter=2000).fit(*load_iris(return_X_y=True))

def fresh():
    return LogisticRegression()

def regression():
    x, _ = load_iris(return_X_y=True)
    return LinearRegression().fit(x[:, :3], x[:, 3])
"""


def test_estimators(folder: Path) -> None:
    (folder / "deep" / "model.py").write_text(ESTIMATORS)
    x, y = load_iris(return_X_y=True)
    model = load_model(spec("fitted", "sklearn", domain=[0, 10]), folder)
    labels = model.labels(torch.tensor(x, dtype=torch.float32)).numpy()
    assert (labels == y).mean() > 0.95
    line = load_model(spec("regression", "sklearn", domain=[0, 10]), folder)
    expected = LinearRegression().fit(x[:, :3], x[:, 3]).predict(x[:, :3])
    got = line.scores(torch.tensor(x[:, :3], dtype=torch.float32))[:, 0].numpy()
    assert np.allclose(got, expected, atol=1e-5)
    refused("must give a fitted estimator", spec("fresh", "sklearn"), folder)


def test_a_pickled_estimator(folder: Path) -> None:
    x, y = load_iris(return_X_y=True)
    estimator = LogisticRegression(max_iter=2000).fit(x, y)
    (folder / "e.joblib").write_bytes(pickle.dumps(estimator))
    config = ModelConfig(kind="sklearn", weights="e.joblib", allow_pickle=True, domain=[0, 10])
    model = load_model(config, folder)
    assert isinstance(model, FunctionModel)
    assert (model.labels(torch.tensor(x, dtype=torch.float32)).numpy() == y).mean() > 0.95
    told = describe(load_model(config, folder))
    assert told["estimator"] == type(estimator).__name__
    assert told == describe(load_model(config, folder))
    again = LogisticRegression(C=0.1, max_iter=2000).fit(x, y)
    (folder / "e.joblib").write_bytes(pickle.dumps(again))
    assert describe(load_model(config, folder))["digest"] != told["digest"]
    (folder / "e.joblib").write_text("hello")
    refused("weights e.joblib cannot be read", config, folder)
    section = {"kind": "sklearn", "weights": "e.joblib"}
    with pytest.raises(WithstandError, match="allow_pickle: true if you trust it"):
        parse_config({"model": section, "data": {}, "threat": {}})


def test_our_own_models_pass_through(folder: Path) -> None:
    (folder / "deep" / "model.py").write_text(
        "from torch import nn\nfrom withstand.models import TorchModel\n"
        "def build():\n    return TorchModel(nn.Linear(2, 3), domain=(-1, 1))\n"
    )
    weights = nn.Linear(2, 3).state_dict()
    save_file(weights, folder / "w.safetensors")
    model = load_model(spec(weights="w.safetensors"), folder)
    assert isinstance(model, TorchModel)
    assert model.domain.lower == -1
    assert torch.equal(model.net.state_dict()["weight"], weights["weight"])


def test_tied_weights_are_not_missed(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))\n"
        "    net[1].weight = net[0].weight\n"
        "    return net\n"
    )
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    save_model(tied, str(tmp_path / "tied.safetensors"))
    config = {"kind": "torch", "factory": "model.py:build", "weights": "tied.safetensors"}
    model = load_model(ModelConfig.model_validate(config), tmp_path)
    x = torch.rand(3, 2)
    assert torch.equal(model.scores(x), tied(x))


@pytest.mark.parametrize("domain", [[0, 1], [0, [255, 254]], [-1, 255]])
def test_two_domains_of_one_model_are_refused(folder: Path, domain: Any) -> None:
    words = r"the model that deep/model.py:wrapped gives has \[0.0, 255.0\]; correct one"
    refused(words, spec("wrapped", domain=domain), folder)


def test_the_domain_of_a_wrapped_model_may_be_told_again_or_left_out(folder: Path) -> None:
    for told in ({}, {"domain": [0, 255]}, {"domain": [[0, 0], [255, 255]]}):
        model = load_model(spec("wrapped", **told), folder)
        assert (model.domain.lower, model.domain.upper) == (0, 255)


@pytest.mark.parametrize(
    ("classes", "given", "places"),
    [
        ([3, 5, 8], [8, 3, 5, 3], [2, 0, 1, 0]),
        ([-1, 1], [1, -1, 1, 1], [1, 0, 1, 1]),
        ([1.0, 2.0], [2, 2, 1, 2], [1, 1, 0, 1]),
        # Not all of them are its own, so that they are places already; so they are with names.
        ([1, 2, 3], [0, 1, 2, 0], [0, 1, 2, 0]),
        ([0, 1, 2], [2, 0, 1, 1], [2, 0, 1, 1]),
        (["a", "b"], [1, 0, 1, 1], [1, 0, 1, 1]),
    ],
)
def test_labels_that_are_an_estimators_own_numbers_become_places(
    tmp_path: Path, classes: list[Any], given: list[int], places: list[int]
) -> None:
    rows = np.arange(len(classes))[:, None] / len(classes)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(LogisticRegression().fit(rows, classes)))
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 1), np.float32), y=np.array(given))
    model: dict[str, Any] = {"kind": "sklearn", "weights": "m.pkl", "allow_pickle": True}
    if len(classes) == 2:
        model["threshold"] = 0.4
    told = {
        "model": model,
        "data": {"kind": "npz", "path": "data.npz"},
        "threat": {"region": {"norm": "linf", "eps": 0.1}},
    }
    data = from_config(parse_config(told), tmp_path).data
    assert data.y.tolist() == places
    assert data.y.dtype == np.int64
    own = given != places
    assert data.classes == (tuple(f"{one:g}" for one in classes) if own else None)
    named = {"kind": "npz", "path": "data.npz", "classes": [*"abcdefghij"]}
    if min(given) >= 0:
        assert from_config(parse_config({**told, "data": named}), tmp_path).data.y.tolist() == given


@pytest.mark.parametrize(
    ("model", "region", "words"),
    [
        ({}, {"frozen": [1, 2]}, "frozen names feature 2, the inputs have 2; give 0 to 1"),
        ({"domain": [[0, 0, 0], 1]}, {}, r"bounds of shape \(3,\), the inputs have \(2,\)"),
    ],
)
def test_features_that_the_inputs_do_not_have_are_refused(
    folder: Path, model: dict[str, Any], region: dict[str, Any], words: str
) -> None:
    np.savez(folder / "data.npz", x=np.zeros((3, 2), np.float32), y=np.arange(3))
    told = {
        "model": {"kind": "torch", "factory": "deep/model.py:build", **model},
        "data": {"kind": "npz", "path": "data.npz"},
        "threat": {"region": {"norm": "linf", "eps": 0.1, **region}},
    }
    with pytest.raises(ConfigError, match=words):
        from_config(parse_config(told), folder)


CHANNELS_LAST = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(18, 2)

    def forward(self, x):
        assert x.shape[1:] == (2, 3, 3), x.shape
        return self.line(x.flatten(1))

def build():
    return Net()

def wrapped():
    from withstand.models import TorchModel

    return TorchModel(Net(), preprocess=lambda x: 2 * x)

def function():
    return lambda x: x[:, 0, 0, :2].copy()
"""


@pytest.mark.parametrize(
    ("name", "kind"), [("build", "torch"), ("wrapped", "torch"), ("function", "python")]
)
def test_pictures_reach_a_model_with_their_channels_last(
    folder: Path, name: str, kind: str
) -> None:
    (folder / "deep" / "model.py").write_text(CHANNELS_LAST)
    made = load_model(spec(name, kind), folder)
    model = load_model(spec(name, kind, layout="hwc"), folder)
    x = torch.rand(4, 3, 2, 3)
    last = x.permute(0, 2, 3, 1).contiguous()
    if isinstance(made, TorchModel):
        net = getattr(model, "model", model).net
        made.net.load_state_dict(net.state_dict())
        wanted = made.gradient(last, lambda scores: scores[:, 0]).gradient
        found = model.gradient(x, lambda scores: scores[:, 0]).gradient
        assert torch.equal(found, wanted.permute(0, 3, 1, 2))
    assert torch.equal(model.scores(x), made.scores(last))


def test_a_layout_of_what_is_no_picture_is_refused(folder: Path) -> None:
    np.savez(folder / "d.npz", x=np.random.rand(4, 2), y=np.arange(4) % 3)
    config = {
        "model": {"kind": "torch", "factory": "deep/model.py:build", "layout": "hwc"},
        "data": {"kind": "npz", "path": "d.npz"},
        "threat": {"region": {"norm": "linf", "eps": 0.1}},
    }
    with pytest.raises(ConfigError, match=r"layout is hwc, but inputs have shape \(2,\)"):
        from_config(parse_config(config), folder)
