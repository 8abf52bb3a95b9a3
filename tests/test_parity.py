"""Parity: every planted difference between two pipelines is named, and equal ones are equal."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from withstand import WithstandError
from withstand._errors import DataError, ModelError
from withstand.cli import main
from withstand.config import load_config
from withstand.data import load_sklearn
from withstand.evaluate import parity as room
from withstand.evaluate.parity import Parity, Suspect, before, parity, parity_of
from withstand.evaluate.parity._pictures import jpeg
from withstand.models import FunctionModel, HttpModel, HttpSettings, TorchModel, sklearn_model

Function = Callable[[Tensor], Tensor]
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def normalise(x: Tensor) -> Tensor:
    return (x - MEAN) / STD


class Whole(nn.Module):
    """Steps and a network in one module, whose steps nobody sees."""

    def __init__(self, net: nn.Module, *steps: Function) -> None:
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        out: Tensor = self.net(x)
        return out


class Coloured:
    """A network trained on digits in coloured ink (B, 3, 16, 16), and 80 that it has not seen."""

    def __init__(self) -> None:
        data = load_sklearn("digits")
        y = torch.from_numpy(data.y)
        grey = interpolate(torch.from_numpy(data.x), size=(16, 16), mode="bilinear")
        rng = torch.Generator().manual_seed(0)
        ink, paper = torch.rand(2, len(y), 3, 1, 1, generator=rng)
        tint = torch.tensor([1.0, 0.8, 0.5])[:, None, None]
        x = grey * ink * tint + 0.4 * (1 - grey) * paper * tint.flip(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
            )
            optimizer = torch.optim.Adam(self.net.parameters(), 1e-2)
            for _ in range(4):
                for rows in torch.split(torch.randperm(1500), 64):
                    optimizer.zero_grad()
                    loss = cross_entropy(self.net(normalise(x[rows])), y[rows])
                    torch.autograd.backward(loss)
                    optimizer.step()
        self.x = x[1500:1580].numpy()
        self.open = TorchModel(self.net, preprocess=normalise)
        self.closed = TorchModel(Whole(self.net, normalise))


@pytest.fixture(scope="module")
def coloured() -> Coloured:
    return Coloured()


def serving(function: Function, **options: Any) -> FunctionModel:
    def answer(x: Any) -> Any:
        with torch.no_grad():
            return function(torch.from_numpy(x)).numpy()

    return FunctionModel(answer, **options)


def named(found: Parity) -> str:
    """The step that was named, by which nearly all of the difference went."""
    assert found.culprit is not None, found.finding
    assert found.differs
    assert found.culprit.left < 0.01
    assert found.culprit.change in found.finding.meaning
    assert found.finding.fix == found.culprit.fix
    return " and ".join(found.culprit.steps)


def luma(x: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (weights * x).sum(1, keepdim=True).expand_as(x)


PLANTED: dict[str, tuple[str, Function]] = {
    "255 missing": ("scaling", lambda x: normalise(255 * x)),
    "255 twice": ("scaling", lambda x: normalise(x / 255)),
    "by 256": ("scaling", lambda x: normalise(255 * x / 256)),
    "normalisation missing": ("normalisation", lambda x: x),
    "normalisation twice": ("normalisation", lambda x: normalise(normalise(x))),
    "other statistics": ("normalisation", lambda x: (x - 0.5) / 0.5),
    "BGR": ("channel order", lambda x: normalise(x.flip(1))),
    "HWC": ("layout", lambda x: normalise(x.reshape(-1, 16, 16, 3).movedim(3, 1))),
    "width first": ("layout", lambda x: normalise(x.transpose(2, 3))),
    "rounded": ("8-bit quantisation", lambda x: normalise((255 * x).round() / 255)),
    "cut": ("8-bit quantisation", lambda x: normalise((255 * x).floor() / 255)),
    "uint8": ("dtype", lambda x: normalise(x.to(torch.uint8).float())),
    "float16": ("dtype", lambda x: normalise(x.half().float())),
    "JPEG": ("JPEG", lambda x: normalise(jpeg(x, 90))),
    "grey": ("colour", lambda x: normalise(luma(x))),
    "mirrored": ("orientation", lambda x: normalise(x.flip(3))),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_step_is_named_in_a_model_of_one_piece(coloured: Coloured, name: str) -> None:
    step, change = PLANTED[name]
    served = serving(lambda x: coloured.net(change(x)))
    assert named(parity(coloured.closed, served, coloured.x)) == step


@pytest.mark.parametrize("name", ["255 missing", "normalisation missing", "BGR", "JPEG"])
def test_a_planted_step_is_named_from_probabilities(coloured: Coloured, name: str) -> None:
    step, change = PLANTED[name]
    served = serving(lambda x: coloured.net(change(x)).softmax(1))
    found = parity(coloured.closed, served, coloured.x)
    assert found.difference.unit == "probabilities"
    assert named(found) == step


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_named(coloured: Coloured, kind: torch.dtype) -> None:
    net = deepcopy(coloured.net).to(kind)
    served = serving(lambda x: net(normalise(x).to(kind)).float())
    for reference in (coloured.open, coloured.closed):
        assert named(parity(reference, served, coloured.x)) == "dtype"


def test_steps_that_can_be_seen_are_named(coloured: Coloured) -> None:
    def inverted(x: Tensor) -> Tensor:
        return 1 - 0.9 * x

    reference = TorchModel(Whole(coloured.net), preprocess=lambda x: inverted(normalise(x)))
    assert parity(reference, reference, coloured.x).finding.verdict == "green"
    visible = nn.Sequential(Whole(nn.Identity(), inverted), *coloured.net)
    without = serving(lambda x: coloured.net(x))
    assert named(parity(TorchModel(visible), without, coloured.x)) == "step Whole"
    late = serving(lambda x: coloured.net(normalise(x).flip(1)))
    found = parity(coloured.open, late, coloured.x)
    assert named(found) == "channel order"
    assert "after preprocessing" in found.finding.meaning


def test_two_steps_at_once_are_named(coloured: Coloured) -> None:
    served = serving(lambda x: coloured.net(x.flip(1)))
    found = parity(coloured.closed, served, coloured.x)
    assert sorted(named(found).split(" and ")) == ["channel order", "normalisation"]
    assert "ImageNet" in found.finding.meaning


def test_classes_in_another_order_are_named(coloured: Coloured) -> None:
    served = serving(lambda x: coloured.net(normalise(x))[:, [1, 0, *range(2, 10)]])
    found = parity(coloured.closed, served, coloured.x)
    assert named(found) == "class order"
    assert "0 answers as 1, 1 answers as 0" in found.finding.meaning


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("nearest", {"mode": "nearest"}),
        ("bicubic", {"mode": "bicubic"}),
        ("bilinear, antialiased", {"mode": "bilinear", "antialias": True}),
        ("bicubic, antialiased", {"mode": "bicubic", "antialias": True}),
        ("area", {"mode": "area"}),
    ],
)
@pytest.mark.parametrize("visible", [True, False])
def test_another_resize_filter_is_named(
    coloured: Coloured, words: str, options: Any, visible: bool
) -> None:
    raw = torch.rand(60, 3, 40, 40, generator=torch.Generator().manual_seed(0))

    def resized(x: Tensor) -> Tensor:
        return interpolate(x, size=(16, 16), mode="bilinear")

    inside = TorchModel(Whole(coloured.net, resized, normalise))
    outside = TorchModel(coloured.net, preprocess=lambda x: normalise(resized(x)))
    served = serving(lambda x: coloured.net(normalise(interpolate(x, size=(16, 16), **options))))
    found = parity(outside if visible else inside, served, raw.numpy())
    assert named(found) == "resize filter"
    assert f": {words} (" in found.finding.meaning


@pytest.mark.parametrize("last", [True, False])
def test_raw_bytes_with_channels_last_are_pictures_too(coloured: Coloured, last: bool) -> None:
    raw = np.round(255 * coloured.x)
    raw = np.moveaxis(raw, 1, 3) if last else raw

    def scaled(x: Tensor) -> Tensor:
        return (x.movedim(3, 1) if last else x) / 255

    reference = TorchModel(Whole(coloured.net, scaled, normalise), domain=(0, 255))
    changes: dict[str, Function] = {
        "channel order": lambda x: x.flip(1),
        "JPEG": lambda x: jpeg(x, 75),
        "scaling": lambda x: 255 * x,
    }
    for step, change in changes.items():
        served = serving(lambda x, change=change: coloured.net(normalise(change(scaled(x)))))
        assert named(parity(reference, served, raw)) == step


def test_equal_pipelines_are_equal_also_up_to_rounding(coloured: Coloured) -> None:
    double = deepcopy(coloured.net).double()
    for served in (
        coloured.open,
        serving(lambda x: double(normalise(x.double()))),
        serving(lambda x: double(normalise(x.double())).softmax(1)),
        serving(lambda x: coloured.net(normalise(x)).softmax(1).double().round(decimals=5)),
        serving(lambda x: coloured.net(normalise(x)).log_softmax(1)),
        serving(lambda x: coloured.net(normalise(x)).argmax(1), returns="labels"),
    ):
        found = parity(coloured.closed, served, coloured.x)
        assert (found.differs, found.finding.verdict, found.suspects) == (False, "green", ())
        assert found.flips.value == 0
        assert found.conclusive


def test_a_label_turned_by_rounding_is_no_flip() -> None:
    x = np.random.default_rng(0).uniform(size=(40, 2)).astype(np.float32)
    tied = FunctionModel(lambda x: np.stack([x[:, 0], x[:, 0] + 1e-8, 0 * x[:, 0]], 1) + 1)
    other = FunctionModel(lambda x: np.stack([x[:, 0] + 1e-6, x[:, 0], 0 * x[:, 0]], 1) + 1)
    found = parity(tied, other, x)
    assert found.flips.value == 0
    assert not found.differs


def test_labels_alone_name_the_step(coloured: Coloured) -> None:
    served = serving(lambda x: coloured.net(normalise(x.flip(1))).argmax(1), returns="labels")
    found = parity(coloured.closed, served, coloured.x)
    assert (found.difference.unit, found.difference.largest) == ("labels", None)
    assert named(found) == "channel order"


def test_what_no_known_step_explains_is_said_to_be_unexplained() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.uniform(size=(60, 6)).astype(np.float32), rng.normal(size=(6, 3))
    reference = FunctionModel(lambda x: x @ weights)
    served = FunctionModel(lambda x: x @ weights + np.sin(40 * x @ weights[:, ::-1]))
    found = parity(reference, served, x)
    assert found.culprit is None
    assert "no known step explains it" in found.finding.meaning
    assert found.finding.verdict == "red"


def test_a_suspect_of_the_users_own_is_named() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.uniform(size=(60, 6)).astype(np.float32), rng.normal(size=(6, 3))
    served = FunctionModel(lambda x: np.sqrt(x) @ weights)
    own = Suspect(step="root", change="the root is taken", fix="leave it", alter=before(torch.sqrt))
    found = parity(FunctionModel(lambda x: x @ weights), served, x, suspects=[own])
    assert named(found) == "root"


def test_answers_that_change_from_call_to_call_are_named_so(coloured: Coloured) -> None:
    rng = torch.Generator().manual_seed(0)
    served = serving(lambda x: coloured.net(normalise(x)) + torch.randn(len(x), 10, generator=rng))
    found = parity(coloured.closed, served, coloured.x)
    assert "differently from one request to the next" in found.finding.meaning
    assert (found.culprit, found.suspects) == (None, ())


# --- tables --------------------------------------------------------------------------------------

NAMES = ["years", "income", "job", "debt", "north", "south", "west"]


class Table:
    """A pipeline of scikit-learn on 300 rows with a category, one-hot columns, missing values."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        n = 300
        job, region = rng.integers(0, 4, n), np.eye(3)[rng.integers(0, 3, n)]
        years, debt = rng.uniform(20, 70, n), rng.lognormal(2, 0.5, n)
        income = 1000 * rng.lognormal(1, 0.3, n)
        y = years / 20 + income / 1500 - debt / 8 + np.array([0, 3, 1, 2])[job] + region @ [0, 1, 2]
        y = np.digitize(y + rng.normal(size=n) / 2, np.quantile(y, [0.3, 0.7]))
        debt[rng.uniform(size=n) < 0.2] = -999
        self.x = np.column_stack([years, income, job, debt, region]).astype(np.float32)
        numbers = make_pipeline(SimpleImputer(missing_values=-999), StandardScaler())
        columns = ColumnTransformer(
            [("numbers", numbers, [0, 1, 3]), ("job", OneHotEncoder(), [2])],
            remainder="passthrough",
        )
        self.fitted = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(self.x, y)
        self.model = sklearn_model(self.fitted, domain=(-999, 1e6))

    def served(self, change: Callable[[Any], Any]) -> FunctionModel:
        return FunctionModel(lambda x: self.fitted.predict_proba(change(x)))


@pytest.fixture(scope="module")
def table() -> Table:
    return Table()


def with_column(j: int, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def changed(x: Any) -> Any:
        return np.column_stack([x[:, :j], change(x[:, j]), x[:, j + 1 :]]).astype(np.float32)

    return changed


TABLES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "codes": (
        "category encoding",
        with_column(2, lambda job: np.array([2, 0, 3, 1])[job.astype(int)]),
    ),
    "one-hot": ("category encoding", lambda x: x[:, [0, 1, 2, 3, 6, 4, 5]]),
    "filled": ("missing values", with_column(3, lambda debt: np.where(debt == -999, 0, debt))),
    "alphabet": ("column order", lambda x: x[:, np.argsort(NAMES)]),
    "cents": ("units", with_column(1, lambda income: 100 * income)),
    "rounded": ("rounding", lambda x: np.trunc(x)),
    "float16": ("dtype", lambda x: x.astype(np.float16).astype(np.float32)),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_planted_step_of_a_table_is_named(table: Table, name: str) -> None:
    step, change = TABLES[name]
    x = table.x
    if name == "alphabet":
        # The encoder of the reference would not take another column's values for a category.
        weights = np.random.default_rng(0).normal(size=(7, 3)) / x.std(0)[:, None]
        reference = FunctionModel(lambda x: x @ weights)
        found = parity(reference, FunctionModel(lambda x: change(x) @ weights), x, features=NAMES)
    else:
        found = parity(table.model, table.served(change), x, features=NAMES)
    assert named(found) == step


def test_encodings_are_told_code_by_code(table: Table) -> None:
    found = parity(table.model, table.served(TABLES["codes"][1]), table.x, features=NAMES)
    assert "0 as 2 in job, 1 as 0 in job, 2 as 3 in job, 3 as 1 in job" in found.finding.meaning


def test_a_scaler_is_missed_exactly_where_it_is_seen_and_nearly_where_not() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 4)) * [1, 5, 2, 9] + [3, 0, -4, 20]).astype(np.float32)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        x, (x / [1, 5, 2, 9]).sum(1) > 1
    )
    served = FunctionModel(lambda x: fitted[-1].predict_proba(x))
    seen = parity(sklearn_model(fitted, domain=(-99, 99)), served, x[:150])
    assert named(seen) == "step StandardScaler"
    unseen = FunctionModel(lambda x: fitted.predict_proba(x))
    found = parity(unseen, served, x[:150])
    assert found.culprit is not None
    assert found.culprit.change == "the standardisation (x - mean) / std is missing"
    assert 0 < found.culprit.left < 0.1


def test_a_regression_has_no_labels_and_is_compared_all_the_same() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 4)).astype(np.float32) * 10
    fitted = LinearRegression().fit(x, 3 * x @ [1, 2, 3, 4])
    model = sklearn_model(fitted, domain=(-99, 99))
    assert parity(model, model, x).finding.verdict == "green"
    found = parity(model, FunctionModel(lambda x: fitted.predict(x / 255)), x)
    assert (found.flips.n, found.finding.verdict) == (0, "red")
    assert named(found) == "scaling"


# --- what cannot be compared ---------------------------------------------------------------------


def test_too_few_inputs_are_no_answer(coloured: Coloured) -> None:
    few = parity(coloured.closed, coloured.open, coloured.x[:5])
    none = parity(coloured.closed, coloured.open, coloured.x[:0])
    for found in (few, none):
        assert (found.differs, found.conclusive, found.finding.verdict) == (False, False, "amber")
        assert json.loads(found.to_json())["conclusive"] is False


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: np.ones((len(x), 7)), "10 scores, the served model with 7"),
        (lambda x: np.full((len(x), 10), np.nan), "served model answers 80 of 80 inputs with NaN"),
    ],
)
def test_answers_that_do_not_compare_are_one_line(
    coloured: Coloured, answer: Any, words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        parity(coloured.closed, FunctionModel(answer), coloured.x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"tolerance": -1}, {"explained": 1}, {"layout": "cwh"}, {"features": ["a"]}],
)
def test_impossible_options_are_refused(coloured: Coloured, options: Any) -> None:
    with pytest.raises(DataError):
        parity(coloured.closed, coloured.open, coloured.x, **options)


def test_what_is_public_is_sorted() -> None:
    constants = [n for n in room.__all__ if n.isupper()]
    assert room.__all__ == sorted(constants) + sorted(set(room.__all__) - set(constants))
    assert all(hasattr(room, name) for name in room.__all__)


# --- through a server, and from the command line -------------------------------------------------


@contextmanager
def endpoint(function: Function) -> Iterator[str]:
    class Service(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["x"]
            with torch.no_grad():
                scores = function(torch.tensor(asked)).softmax(1)
            body = json.dumps({"scores": scores.tolist()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_step_is_named_through_a_server(coloured: Coloured) -> None:
    settings = HttpSettings(format="template", request={"x": "$batch"}, reply="scores")
    with endpoint(lambda x: coloured.net(normalise(x.flip(1)))) as url:
        served = HttpModel(url, settings)
        found = parity(coloured.closed, served, coloured.x)
        assert named(found) == "channel order"
        assert served.sent == len(coloured.x) + 16
        served.close()


MODEL = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
"""
CONFIG = """
model: {kind: torch, factory: "model.py:build", weights: weights.pt}
served:
  kind: http
  url: URL
  http: {format: template, request: {x: "$batch"}, reply: scores}
data: {kind: sklearn, name: digits}
threat: {region: {norm: linf, eps: 0.1}}
"""


@pytest.fixture
def project(digits: Any, tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    torch.save(digits.net.state_dict(), tmp_path / "weights.pt")
    return tmp_path


def withstand(monkeypatch: Any, folder: Path, *words: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["withstand", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_compares_model_and_served(
    digits: Any, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with endpoint(lambda x: digits.net(x / 255)) as url:
        (project / "withstand.yaml").write_text(CONFIG.replace("URL", url))
        assert withstand(monkeypatch, project, "parity", "--limit", "40", "--json") == 1
        told = json.loads(capsys.readouterr().out)
        assert (told["n"], told["culprit"]["steps"]) == (40, ["scaling"])
        assert told["finding"]["check"] == "preprocessing parity"
    with endpoint(digits.net) as url:
        (project / "withstand.yaml").write_text(CONFIG.replace("URL", url))
        assert withstand(monkeypatch, project, "parity", "--limit", "40") == 0
        out, err = capsys.readouterr()
        assert ("green" in out, err) == (True, "")
        assert withstand(monkeypatch, project, "parity", "--limit", "5") == 3


def test_the_command_says_what_is_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIG.replace("URL", "http://127.0.0.1:9").replace("scores}", "scores, retries: 0}")
    (project / "withstand.yaml").write_text(text)
    assert withstand(monkeypatch, project, "parity") == 2
    assert capsys.readouterr().err.count("\n") == 1
    without = text[: text.index("served:")] + text[text.index("data:") :]
    (project / "withstand.yaml").write_text(without)
    assert withstand(monkeypatch, project, "parity") == 2
    assert "served is missing" in capsys.readouterr().err


def test_a_served_model_that_cannot_be_opened_is_blamed_by_name(project: Path) -> None:
    text = CONFIG.partition("served:")[0] + "served: {kind: onnx, weights: none.onnx}\n"
    (project / "withstand.yaml").write_text(text + CONFIG[CONFIG.index("data:") :])
    with pytest.raises(WithstandError, match="served: "):
        parity_of(load_config(project / "withstand.yaml"), project)
