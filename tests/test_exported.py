"""Networks that bring their own program: opened on the user's word, then as good as any."""

import importlib
import os
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from withstand import attacks
from withstand._errors import ModelError, WithstandError
from withstand.config import ModelConfig, parse_config
from withstand.models import TorchModel, describe, load_model
from withstand.models._exported import exported
from withstand.threat import Linf, Threat


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(144, 10),
    ).eval()


SHOWN = torch.rand(3, 1, 8, 8)


def scripted(module: nn.Module, path: Path, *, script: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.script(module) if script else torch.jit.trace(module, SHOWN)
        torch.jit.save(made, str(path))
    return path


def program(module: nn.Module, path: Path, *, free: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("batch")},) if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (SHOWN,), dynamic_shapes=shapes), path)
    return path


def written(kind: str, module: nn.Module, folder: Path) -> Path:
    if kind == "pt2":
        return program(module, folder / "m.pt2")
    return scripted(module, folder / "m.pt", script=kind == "script")


def section(path: Path, **more: Any) -> ModelConfig:
    return ModelConfig.model_validate({"kind": "torch", "weights": path.name, **more})


@pytest.mark.parametrize("kind", ["trace", "script", "pt2"])
def test_archives_are_as_good_as_the_network(kind: str, tmp_path: Path) -> None:
    own = TorchModel(net())
    path = written(kind, own.net, tmp_path)
    model = load_model(section(path, allow_pickle=True), tmp_path)
    assert isinstance(model, TorchModel)
    x, y = torch.rand(7, 1, 8, 8), torch.arange(7)
    assert torch.allclose(model.scores(x), own.scores(x), atol=1e-6)
    ours, theirs = (m.gradient(x, lambda s: s[:, 0] ** 2) for m in (model, own))
    assert torch.allclose(ours.gradient, theirs.gradient, atol=1e-6)
    weights = {name: value.clone() for name, value in model.net.state_dict().items()}
    threat = Threat(region=Linf(0.1))
    results = [attacks.run(attacks.PGD(steps=5), m, x, y, threat, seed=0) for m in (model, own)]
    assert torch.equal(results[0].success, results[1].success)
    assert torch.allclose(results[0].x_adv, results[1].x_adv, atol=1e-5)
    assert all(torch.equal(weights[name], value) for name, value in model.net.state_dict().items())
    assert describe(model)["parameters"] == sum(p.numel() for p in own.net.parameters())


@pytest.mark.parametrize("kind", ["trace", "pt2"])
def test_programs_are_opened_on_the_users_word_only(kind: str, tmp_path: Path) -> None:
    path = written(kind, net(), tmp_path)
    whole = {"model": {"kind": "torch", "weights": path.name}, "data": {}, "threat": {}}
    with pytest.raises(WithstandError, match=r"factory is missing; .* true if you trust it"):
        parse_config(whole)
    with pytest.raises(
        ModelError, match=rf"{path.name} are a .*, which can run any code"
    ) as caught:
        exported(path, path.name, allow_pickle=False)
    assert "\n" not in str(caught.value)


class Writes(nn.Module):
    """TorchScript that writes a file, already while it is loaded."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.w = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.w.sum()

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return (self.place, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.place = state[0]
        self.training = state[1]
        self.w = torch.from_file(state[0], True, 4, dtype=torch.float32)
        self.w.fill_(0.0)


def test_what_the_word_is_asked_for(tmp_path: Path) -> None:
    place = tmp_path / "written"
    path = scripted(Writes(str(place)), tmp_path / "m.pt", script=True)
    place.unlink(missing_ok=True)
    with pytest.raises(ModelError, match="can run any code"):
        exported(path, "m.pt", allow_pickle=False)
    assert not place.exists()
    exported(path, "m.pt", allow_pickle=True)
    # Torch itself would open it without a word; should it not any more, the rule may be relaxed.
    assert place.exists()


class Touch:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def test_pickles_in_a_pt2(tmp_path: Path) -> None:
    path, place = program(net(), tmp_path / "m.pt2"), tmp_path / "made"
    with zipfile.ZipFile(path) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    weights = next(name for name in inside if name.endswith("model_weights_config.json"))
    first = weights.replace("model_weights_config.json", "weight_0")
    inside[weights] = inside[weights].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
    torch.save(Touch(place), tmp_path / "pickle")
    inside[first] = (tmp_path / "pickle").read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in inside.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match="can run any code"):
        exported(path, "m.pt2", allow_pickle=False)
    assert not place.exists()
    with pytest.raises(ModelError, match=r"m.pt2 cannot be read"):
        exported(path, "m.pt2", allow_pickle=True)
    assert place.exists()


def test_a_batch_size_that_was_exported_too(tmp_path: Path) -> None:
    path = program(net(), tmp_path / "m.pt2", free=False)
    words = r"exported for batches of exactly 3; export with dynamic_shapes=\(\{0: torch.export.Dim"
    with pytest.raises(ModelError, match=words):
        exported(path, "m.pt2", allow_pickle=True)


def test_a_training_mode_that_was_exported_too(tmp_path: Path) -> None:
    path = program(net().train(), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"exported in training mode; call eval\(\)"):
        exported(path, "m.pt2", allow_pickle=True)


class Two(nn.Module):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return x + z


def test_programs_of_two_inputs(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Two(), (SHOWN, SHOWN)), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="take 2 inputs; only a network of one tensor"):
        exported(tmp_path / "m.pt2", "m.pt2", allow_pickle=True)


@pytest.mark.parametrize("kind", ["trace", "pt2"])
def test_damaged_and_missing_files(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(kind, net(), tmp_path)
    name, content = path.name, path.read_bytes()
    capfd.readouterr()
    for damaged in (b"", b"hello", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=f"{name} cannot be read as an archive of torch"):
            exported(path, name, allow_pickle=True)
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        inside = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, held in inside.items():
            archive.writestr(entry, held[: len(held) // 2])
    with pytest.raises(ModelError, match=rf"{name} cannot be read \(") as caught:
        exported(path, name, allow_pickle=True)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    path.unlink()
    with pytest.raises(ModelError, match=f"{name} are not there; correct model.weights"):
        load_model(section(path, allow_pickle=True), tmp_path)


def test_numbers_without_a_network(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "m.pt")
    with pytest.raises(WithstandError, match=r"only its numbers; add model.factory"):
        load_model(section(tmp_path / "m.pt", allow_pickle=True), tmp_path)
    with pytest.raises(ValueError, match="factory is missing"):
        section(tmp_path / "m.safetensors")


def test_a_whole_pickled_network_is_opened_on_the_users_word_only(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"holds the whole network .* allow_pickle: true"):
        section(tmp_path / "m.pt")
    with pytest.raises(ModelError, match="are a pickle, which can run any code"):
        exported(tmp_path / "m.pt", "m.pt", allow_pickle=False)
    model = load_model(section(tmp_path / "m.pt", allow_pickle=True), tmp_path)
    assert torch.equal(model.scores(SHOWN), net()(SHOWN))


def test_a_pickled_network_finds_its_class_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from torch import nn\nclass Net(nn.Flatten):\n    pass\n"
    (tmp_path / "its_own_class.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(importlib.import_module("its_own_class").Net(), tmp_path / "m.pt")
    monkeypatch.undo()
    sys.modules.pop("its_own_class")
    model = load_model(section(tmp_path / "m.pt", allow_pickle=True), tmp_path)
    assert model.scores(SHOWN).shape == (3, 64)
    sys.modules.pop("its_own_class")
    (tmp_path / "its_own_class.py").unlink()
    with pytest.raises(ModelError, match=r"cannot be read \(ModuleNotFoundError.* use a factory"):
        load_model(section(tmp_path / "m.pt", allow_pickle=True), tmp_path)
