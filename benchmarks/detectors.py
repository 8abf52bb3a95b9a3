"""Detectors on real data, beside attacks that do not know of them and attacks that do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from measure import Rows
from networks import CACHE, DATA, code, mnist, network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand.data import from_arrays
from withstand.detect import (
    Confidence,
    FeatureSqueezing,
    Fused,
    Mahalanobis,
    Method,
    Residual,
    fit,
)
from withstand.detect.evaluation import DetectionReport, Row, evaluate_detector
from withstand.models import TorchModel
from withstand.stats import clopper_pearson, lower_bound
from withstand.threat import Linf, Threat

SURE = 0.95


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A trained network, and inputs that have nothing in common: for fitting, for the threshold,
    for the evaluation."""

    net: nn.Module
    fitted: tuple[Tensor, Tensor]
    held_out: Tensor
    tested: tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and data by name, the radius, the detector, and what is spent on attacks."""

    data: str
    eps: float
    method: Method
    network: str = "standard"
    preset: str = "standard"
    attacked: int = 200


PHOTOGRAPHS = Fused(parts=(Mahalanobis(), FeatureSqueezing(bits=5, median=2), Residual()), by="max")
# Before a background that is quite flat, the residual would see how inputs are stored.
DIGITS = Fused(
    parts=(Mahalanobis(), FeatureSqueezing(bits=1, median=2), Confidence(of="margin")),
    by="harmonic",
)
CASES = {
    "MNIST 0.1": Case(data="mnist", eps=0.1, method=DIGITS),
    "MNIST 0.3": Case(data="mnist", eps=0.3, method=DIGITS),
    "CIFAR-10 8/255": Case(data="cifar10", eps=8 / 255, method=PHOTOGRAPHS, preset="smoke"),
    "signs 8/255": Case(data="signs", eps=8 / 255, method=PHOTOGRAPHS, preset="smoke"),
}
HARDENED = {
    f"hardened MNIST 0.3, {method.of}": Case(
        data="mnist",
        eps=0.3,
        method=method,
        network="adversarial",
        preset="smoke",
        attacked=1000,
    )
    for method in (Confidence(), Confidence(of="margin"))
}


def convolutional(classes: int) -> nn.Sequential:
    """Three convolutions and two linear layers, for 32x32 colour images."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def _trained(name: str, x: Tensor, y: Tensor, classes: int, epochs: int) -> nn.Module:
    file = CACHE / f"detectors-{name}.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = convolutional(classes)
        if not file.exists():
            optimizer = torch.optim.Adam(net.parameters(), 2e-3)
            batches = -(-len(x) // 128)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * batches)
            for _ in range(epochs):
                for rows in torch.randperm(len(x)).split(128):
                    # Shifted by up to two pixels, the whole batch alike.
                    across, down = torch.randint(-2, 3, (2,)).tolist()
                    shifted = x[rows].roll((down, across), (2, 3))
                    optimizer.zero_grad()
                    cross_entropy(net(shifted), y[rows]).backward()
                    optimizer.step()
                    schedule.step()
            CACHE.mkdir(exist_ok=True)
            torch.save(net.state_dict(), file)
    net.load_state_dict(torch.load(file, weights_only=True))
    return net.eval()


def _images(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).float().permute(0, 3, 1, 2).contiguous() / 255


@cache
def parts(data: str, name: str) -> Parts:
    """The network, and the inputs of each part.

    MNIST and CIFAR-10: the threshold is taken from the second half of the test images. Signs: from
    a fifth of the training tracks, on which the network was not trained.
    """
    if data == "mnist":
        x, y = mnist("test")
        return Parts(
            net=network(name),
            fitted=mnist("train", 5000),
            held_out=x[4000:],
            tested=(x[:4000], y[:4000]),
        )
    if data == "cifar10":
        with np.load(DATA / "cifar10.npz") as file:
            x, y = _images(file["x_train"]), torch.from_numpy(file["y_train"]).long()
            test, label = _images(file["x_test"]), torch.from_numpy(file["y_test"]).long()
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
        test, label = test[order], label[order]
        net = _trained("cifar10", x, y.reshape(-1), 10, 8)
        held_out, test, label = test[4000:], test[:4000], label.reshape(-1)[:4000]
        return Parts(net=net, fitted=(x[::4], y.reshape(-1)[::4]), held_out=held_out,
                     tested=(test, label))  # fmt: skip
    with np.load(DATA / "signs" / "gtsrb32_track_split.npz") as file:
        x, y = _images(file["x_train"]), torch.from_numpy(file["y_train"]).long()
        tracks = np.unique(file["track_train"], return_inverse=True)[1].reshape(-1)
        test, label = _images(file["x_test"]), torch.from_numpy(file["y_test"]).long()
    out = torch.from_numpy(tracks % 5 == 4)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    net = _trained("signs", x[~out], y[~out], 43, 15)
    return Parts(
        net=net, fitted=(x[~out], y[~out]), held_out=x[out], tested=(test[order], label[order])
    )


def evaluated(name: str, case: Case) -> DetectionReport:
    """The detector of a case, evaluated at the radius alone."""
    found = parts(case.data, case.network)
    detector = fit(case.method, TorchModel(found.net), *found.fitted).calibrate(found.held_out)
    x, y = found.tested
    return evaluate_detector(
        detector,
        from_arrays(x.numpy(), y.numpy(), name=case.data),
        Threat(region=Linf(case.eps)),
        samples=case.attacked,
        preset=case.preset,
        radii=(1.0,),
        known=(found.fitted[0], found.held_out),
        checkpoint=CACHE / f"detectors-{name.replace(' ', '-').replace('/', '-')}",
    )


def _row(report: DetectionReport, name: str, kept: str) -> Row:
    return next(r for r in report.rows if r.name == name and r.kept == kept and not r.knows)


def _kept(name: str, case: Case, told: Any) -> dict[str, Any]:
    """The row of a case, kept once this code has measured it, with the whole report beside it."""
    file = CACHE / f"detectors-{name.replace(' ', '-').replace('/', '-')}-{code()}.json"
    if not file.exists():
        report = evaluated(name, case)
        report.save(CACHE / file.stem / "report")
        file.write_text(json.dumps({"case": name, **told(report)}) + "\n")
    row: dict[str, Any] = json.loads(file.read_text())
    print(row, flush=True)
    return row


def _stops(report: DetectionReport) -> dict[str, Any]:
    surest = _row(report, "PGD", "surest").tpr
    least = float(lower_bound(round(surest.value * surest.n), surest.n, 1 - SURE))
    radius = max(report.provenance["radii"])
    aware = report.at(radius, knows=True)
    assert aware is not None
    strongest = max((r for r in report.rows if r.knows), key=lambda r: r.usr.value)
    cost = report.cost
    return {
        "clean": str(report.clean_accuracy),
        "false alarms": str(report.benign.flagged),
        "PGD": str(surest),
        "PGD, at least": f"{100 * least:.1f} %",
        "PGD, first success": str(_row(report, "PGD", "first success").tpr),
        "FMN": str(_row(report, "FMN", "smallest change").tpr),
        "C&W (L2)": str(_row(report, "CarliniWagner", "smallest change").tpr),
        "Square": str(_row(report, "Square", "first success").tpr),
        "adaptive": str(aware.tpr),
        "USR": str(aware.usr),
        "strongest": strongest.name,
        "us an input": f"{cost.batched:.0f} / {cost.model_batch:.0f}",
        "verdict": report.verdict.level,
        "findings": ", ".join(f.check for f in report.trust.findings if f.verdict != "green"),
    }


def _rejects(report: DetectionReport) -> dict[str, Any]:
    aware = report.at(max(report.provenance["radii"]), knows=True)
    assert aware is not None
    fewer = clopper_pearson(
        round(aware.bare_error.n * (aware.bare_error.value - aware.error.value)),
        round(aware.bare_error.n * aware.bare_error.value),
    )
    return {
        "clean": str(report.clean_accuracy),
        "benign rejected": str(report.benign.flagged),
        "robust error": str(aware.bare_error),
        "with rejection": str(aware.error),
        "of the errors rejected": str(fewer),
        "verdict": report.verdict.level,
    }


def stopped() -> Rows:
    """Fused detectors on real data.

    MNIST: Mahalanobis, feature squeezing and margin, by the harmonic mean of their p-values, chosen
    by `detectors-members` on other images. CIFAR-10 and signs: Mahalanobis, feature squeezing and
    residual; the rarest counts. The first 200 test images attacked in Linf, seed 0; preset
    `standard` on MNIST, `smoke` on the others. Thresholds for 1 % from held-out images, false
    alarms on test images that nothing was fitted to. Flagged: of the successful attacks, in
    brackets the exact 95 % interval. PGD goes to its end and the surest mistake counts; at least:
    the one-sided lower bound at 95 %. adaptive and USR (fooled and not flagged, of all inputs): the
    worst case over all attacks that know of the detector. us an input: CPU of detector and model /
    model alone, in batches, on a busy machine. Signs come in tracks of similar frames, so that
    intervals there are too narrow.
    """
    return [_kept(name, case, _stops) for name, case in CASES.items()]


def rejection() -> Rows:
    """Rejection by calibrated confidence on a hardened model (PGD training, MNIST, Linf 0.3).

    The threshold is for 1 % of benign inputs; 1,000 test images under all attacks, those that know
    of the detector among them (preset `smoke`). robust error: wrong by itself or under attack; with
    rejection: so and not rejected.
    """
    return [_kept(name, case, _rejects) for name, case in HARDENED.items()]
