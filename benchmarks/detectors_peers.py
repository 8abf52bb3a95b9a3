"""Detectors against the same methods of PyOD and ART, on the same features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import peers
import torch
from measure import Rows, Timed, timed
from networks import DATA, mnist, network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand import detect
from withstand.models import TorchModel

RADII = (0.1, 0.3)
LAYER = "3"
AGAIN = 3


class Case(NamedTuple):
    """Benign features to learn from, benign ones to tell apart, and those to find."""

    data: str
    known: Tensor
    benign: Tensor
    odd: Tensor


def detectors() -> Rows:
    """Detectors against PyOD and ART: AUROC, seconds to fit and to score.

    One layer of the MNIST network and PGD of 40 steps at 0.1 and 0.3 on 300 images; and NSL-KDD,
    normal connections against the attacks of its test file. PyOD and withstand see the same rows.
    Seconds are of the process, the best of three in turn, so that nobody pays for first imports.
    ART's detector learns once from examples that ART makes, withstand's from those of its own
    `fit`; both times count the attack.
    """
    rows: Rows = []
    for case in (*_digits(), _connections()):
        for name, (mine, theirs) in _methods(case.known).items():
            plain = TorchModel(nn.Identity(), domain=(-np.inf, np.inf))
            ours, their = _fastest(
                partial(detect.fit, mine, plain, case.known),
                partial(theirs.fit, case.known.numpy()),
            )
            rows.append(
                {
                    "data": case.data,
                    "method": type(mine).__name__,
                    "peer": f"PyOD {name}",
                    **_compared(
                        case,
                        lambda x, d=ours.found: d.score(x).numpy(),
                        lambda x, d=theirs: d.decision_function(x.numpy()),
                    ),
                    "fit s, withstand": round(ours.cpu, 2),
                    "fit s, peer": round(their.cpu, 2),
                }
            )
    return rows + _learned()


def _methods(known: Tensor) -> dict[str, tuple[detect.Method, Any]]:
    density = detect.KernelDensity(of="input", per_class=False, references=len(known))
    width = float(density.learned(known, torch.zeros(len(known), dtype=torch.long))["width"])
    near = detect.NearestNeighbours(of="input", metric="euclidean", references=len(known))
    theirs = peers.outliers(width)
    ours = {
        "KNN": near,
        "KDE": density,
        "IForest": detect.IsolationForest(of="input"),
        "PCA": detect.PCAReconstruction(of="input"),
        "ECOD": detect.FeatureAnomaly(),
        "LOF": detect.LocalOutlierFactor(of="input", references=len(known)),
        "MCD": detect.RobustCovariance(of="input"),
    }
    return {name: (method, theirs[name]) for name, method in ours.items()}


def _fastest(*works: Callable[[], Any]) -> list[Timed]:
    tries = [[timed(work) for work in works] for _ in range(AGAIN)]
    return [min(spent, key=lambda one: one.cpu) for spent in zip(*tries, strict=True)]


Scoring = Callable[[Tensor], Any]


def _compared(case: Case, ours: Scoring, theirs: Scoring) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    x = torch.cat((case.benign, case.odd))
    truth = np.repeat([0, 1], [len(case.benign), len(case.odd)])
    mine, other = _fastest(partial(ours, x), partial(theirs, x))
    return {
        "benign, odd": f"{len(case.benign)}, {len(case.odd)}",
        "AUROC, withstand": round(float(roc_auc_score(truth, mine.found)), 4),
        "AUROC, peer": round(float(roc_auc_score(truth, other.found)), 4),
        "score s, withstand": round(mine.cpu, 3),
        "score s, peer": round(other.cpu, 3),
    }


def attacked(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """PGD of 40 full steps, those that fool the network."""
    generator = torch.Generator().manual_seed(0)
    made = x + eps * (2 * torch.rand(x.shape, generator=generator) - 1)
    for _ in range(40):
        made = made.clamp(0, 1).requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(net(made), y), made)
        made = made.detach() + 2.5 / 40 * eps * slope.sign()
        made = torch.minimum(torch.maximum(made, x - eps), x + eps).clamp(0, 1)
    with torch.no_grad():
        return made[net(made).argmax(1) != y]


def _digits() -> Iterator[Case]:
    net = network("standard")
    known, benign = mnist("train", 5000)[0], mnist("test", 2000, 1000)[0]
    look = detect.Observer(model=TorchModel(net), needs="activations", layers=(LAYER,))

    def features(x: Tensor) -> Tensor:
        return look.over(x, None, 256).activations[LAYER].contiguous()

    for eps in RADII:
        odd = attacked(net, *mnist("test", 300), eps)
        yield Case(f"MNIST, PGD {eps:g}", features(known), features(benign), features(odd))


def _connections() -> Case:
    import pandas as pd

    def numbers(name: str) -> tuple[Any, Any]:
        frame = pd.read_parquet(DATA / "tabular" / f"nsl_kdd_{name}.parquet")
        label = next(c for c in frame.columns if (frame[c] == "normal").any())
        columns = frame.drop(columns=label).select_dtypes("number")
        columns = columns.drop(columns=[c for c in columns if "difficulty" in c or c == "level"])
        return np.log1p(columns.to_numpy(np.float64)), (frame[label] == "normal").to_numpy()

    x, normal = numbers("train20")
    known = x[normal][:5000]
    centre, scale = known.mean(0), known.std(0)
    moving = scale > 0
    test, fine = numbers("test")
    learned, benign, odd = (
        torch.from_numpy(((part - centre) / np.where(moving, scale, 1))[:, moving]).float()
        for part in (known, test[fine][:2000], test[~fine][:2000])
    )
    return Case("NSL-KDD", learned, benign, odd)


def _learned() -> Rows:
    """ART's BinaryActivationDetector and ours, from 500 images at two radii, on other images.

    ART's sees every place of one layer, ours the means over the places of three.
    """
    net, known = network("standard"), mnist("train", 1500)
    method = detect.Learned(radii=RADII, steps=10, examples=500)
    ours = timed(partial(detect.fit, method, TorchModel(net), *known))
    their = timed(partial(peers.activation_detector, net, known[0], LAYER, RADII, 500, 10))
    rows: Rows = []
    for eps in RADII:
        odd = attacked(net, *mnist("test", 300), eps)
        case = Case(f"MNIST, PGD {eps:g}", known[0], mnist("test", 2000, 1000)[0], odd)
        found = _compared(case, lambda x: ours.found.score(x).numpy(), their.found)
        rows.append(
            {
                "data": case.data,
                "method": "Learned",
                "peer": "ART BinaryActivationDetector",
                **found,
                "fit s, withstand": round(ours.cpu, 2),
                "fit s, peer": round(their.cpu, 2),
            }
        )
    return rows
